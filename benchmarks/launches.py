#!/usr/bin/env python3
"""How many operations PyTorch dispatches in a step on a GPU, and how many of them launch a kernel; no GPU is needed.

    python benchmarks/launches.py --by-kind

A step counts from the loaded images on: augmentation, forward and backward pass, optimiser, means, in bfloat16 as CUDA's autocast
casts. It is the second of a phase; the first makes the optimiser's state. A single path differs from draw to draw. Views and
allocations launch nothing; what else is dispatched launches a kernel at least, some operations several.
"""

import argparse
import sys
from collections import Counter
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from statistics import mean

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("workflow/scripts", "tests"))

import torch
from steps import SEARCHES, a_search, a_training, advance, random_images
from torch._subclasses.fake_tensor import FakeTensorMode

from absent_gpu import CudaAutocast, Operations
from fbnet.space import read_space
from fbnet.training import Loop

SPACE = "fbnet_cifar"
FEW = 8  # images of a batch, where the count does not depend on it
KINDS = (
    *("soft, weights", "soft, theta", "single path, weights", "single path, theta"),
    *("soft shared, weights", "single path shared, weights", "one shot, weights", "training one network"),
)


def counts(kind: str, draws: int) -> list[Counter]:
    """The operations by name of a step of this kind; of a single path, of so many draws.

    What a soft step does depends on the number of pixels, so that it is counted at full size, with fake tensors, which compute
    nothing. A single path is read by the host, which fake tensors refuse; it and a network do the same at any batch size.
    """
    name, _, phase = kind.partition(", ")
    if not phase:
        return operations(training(FEW), "train", 1)
    if name.startswith("soft"):
        return operations(search(name, 192, 2), phase, 1, FakeTensorMode(allow_non_fake_inputs=True))
    return operations(search(name, FEW, draws + 1), phase, draws)


def search(name: str, batch_size: int, steps: int) -> Loop:
    """A search whose phases have so many steps, on the CPU, but shaped as for a GPU."""
    space = read_space(SPACE)
    settings = SEARCHES[name] | {"batch_size": batch_size, "weight_share": 0.5, "precision": "bfloat16"}
    dataset = random_images(2 * steps * batch_size, space.resolution)
    return a_search(space, dataset, torch.device("cpu"), made_for="cuda", **settings)


def training(batch_size: int) -> Loop:
    """The training of FBNet-A on three batches."""
    space = read_space(SPACE)
    settings = {"batch_size": batch_size, "precision": "bfloat16"}
    return a_training(space, random_images(3 * batch_size, space.resolution), torch.device("cpu"), **settings)


def operations(loop: Loop, phase: str, steps: int, fake=None) -> list[Counter]:
    """What so many steps dispatch each, after a first; computed, or in a mode of fake tensors."""
    loop.phase = phase
    loop.begin()
    loaded, found = list(islice(loop.batches[phase].training(0), steps + 1)), []
    with CudaAutocast(), fake or nullcontext():
        for images, labels in loaded:
            with Operations() as dispatched:
                advance(loop, images, labels)
            found.append(Counter({name: count for name, count in dispatched.counts().items() if not name.startswith("prim.")}))
    return found[1:]


def launches(name: str) -> bool:
    """Whether an operation computes something: it is no view, whose result is its argument's memory, and no allocation."""
    packet, overload = name.split(".")
    returns = getattr(getattr(torch.ops.aten, packet), overload)._schema.returns
    is_view = any(result.alias_info and not result.alias_info.is_write for result in returns)
    return not is_view and not packet.startswith(("empty", "new_empty"))


def kernels(found: Counter) -> int:
    return sum(count for name, count in found.items() if launches(name))


def main(arguments: argparse.Namespace) -> None:
    print(f"{SPACE}, torch {torch.__version__}; paths: the mean and the most of {arguments.draws} draws\n")
    print("| step | operations | of these with a kernel |\n|---|---|---|")
    steps = {kind: counts(kind, arguments.draws) for kind in KINDS}
    for kind, found in steps.items():
        cells = [[each.total() for each in found], [kernels(each) for each in found]]
        texts = [f"{mean(cell):.0f}" + (f", at most {max(cell)}" if len(cell) > 1 else "") for cell in cells]
        print(f"| {kind} | {' | '.join(texts)} |")
    if arguments.by_kind:
        for kind, found in steps.items():
            print(f"\n{kind}:\n\n| operation | in a step | kernel |\n|---|---|---|")
            for name, count in sum(found, Counter()).most_common(arguments.by_kind):
                print(f"| {name} | {count / len(found):.1f} | {'yes' if launches(name) else 'no'} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=50, help="of paths")
    parser.add_argument("--by-kind", type=int, nargs="?", const=25, help="also so many of the commonest operations (25)")
    main(parser.parse_args())
