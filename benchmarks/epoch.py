#!/usr/bin/env python3
"""Loading images, and whole epochs of the weight phase, soft and single path, against the plain formulation.

The plain epoch is cut off after --steps steps (on a CPU it takes a quarter of an hour) and its rate taken; ours run whole.

    python benchmarks/epoch.py --space fbnet_32 --batch 128
"""

import argparse
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import numpy as np
import torch
from plain import PlainTraining, loader
from steps import a_search, advance, random_images, wait

from fbnet.data.batches import Batches
from fbnet.device import choose_device
from fbnet.memory import is_out_of_memory
from fbnet.space import read_space
from fbnet.terminal import replace_unknown_characters
from fbnet.training import Loop


def plain_loading(dataset, batch: int, device: torch.device) -> float:
    """Images per second of the host's DataLoader, its start left out."""
    start, count = None, 0
    for images, _ in loader(dataset, batch):
        images.to(device)
        start, count = (time.perf_counter(), 0) if start is None else (start, count + len(images))
    return count / (time.perf_counter() - start)


def our_loading(dataset, batch: int, device: torch.device) -> float:
    """Images per second of the resident set, augmented and normalised."""
    batches = Batches(dataset, np.arange(len(dataset.train_labels)), batch, device)
    wait(device)
    start = time.perf_counter()
    for images, _ in batches.training(0):
        batches.augmented(images, 4, True)
    wait(device)
    return len(batches) * batch / (time.perf_counter() - start)


def our_epoch(loop: Loop, phase: str) -> float:
    """Images per second of a whole phase, its draws and means included."""
    batches = loop.batches[phase]
    loop.phase, loop.step = phase, 0
    wait(loop.device)
    start = time.perf_counter()
    loop.begin()
    for images, labels in batches.training(loop.seed(0)):
        advance(loop, images, labels)
    loop.means.read(loop.ranks)
    return len(batches) * batches.batch_size / (time.perf_counter() - start)


def plain_epoch(plain: PlainTraining, batch: int, steps: int) -> float:
    """Images per second over so many steps, after three that fill the loader."""
    for _ in range(3):
        plain.step()
    start = time.perf_counter()
    for _ in range(steps):
        plain.step()
    return steps * batch / (time.perf_counter() - start)


def main(arguments: argparse.Namespace) -> None:
    space, device = read_space(arguments.space), choose_device(arguments.threads)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{space.name}, batch {arguments.batch}, {name}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}\n"
    )
    dataset = random_images(50_000, space.resolution)
    rates = {"plain": [], "here": []}
    for _ in range(arguments.rounds):
        rates["plain"].append(plain_loading(dataset, arguments.batch, device))
        rates["here"] += [our_loading(dataset, arguments.batch, device) for _ in range(3)]
    print(f"Loading 50,000 images, n = {arguments.rounds} and {3 * arguments.rounds} epochs:\n")
    print("| loader | images/s: median, least, most | faster |\n|---|---|---|")
    for kind, found in rates.items():
        print(
            f"| {kind} | {median(found):.0f} ({min(found):.0f} to {max(found):.0f}) "
            f"| {median(found) / median(rates['plain']):.1f} × |"
        )

    dataset = random_images(arguments.images, space.resolution)
    plain = PlainTraining(space, dataset, arguments.batch, device)
    searches = {
        kind: a_search(
            space, dataset, device, sampling=kind, batch_size=arguments.batch, compile=arguments.compile and kind == "soft"
        )
        for kind in ("soft", "single_path")
    }
    epochs = {"plain": lambda: plain_epoch(plain, arguments.batch, arguments.steps)}
    epochs |= {kind: partial(our_epoch, search, "weights") for kind, search in searches.items()}
    rates = {kind: [] for kind in epochs}
    for _ in range(arguments.epochs):
        for kind in list(epochs):
            try:
                rates[kind].append(epochs[kind]())
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                print(f"\nLeft out: {kind}, which does not fit into the memory.")
                del epochs[kind], rates[kind]
    images = len(searches["soft"].batches["weights"]) * arguments.batch
    print(f"\nThe weight phase of an epoch, {images} images, n = {arguments.epochs} (plain: {arguments.steps} steps each):\n")
    print("| phase | images/s | seconds an epoch | faster |\n|---|---|---|---|")
    for kind, found in rates.items():
        rate = median(found)
        faster = f"{rate / median(rates['plain']):.1f} ×" if "plain" in rates else "–"
        print(f"| {kind} | {rate:.0f} | {images / rate:.1f} | {faster} |")


if __name__ == "__main__":
    replace_unknown_characters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="fbnet_32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of loading")
    parser.add_argument("--epochs", type=int, default=1, help="of training")
    parser.add_argument("--images", type=int, default=50_000, help="of the set that is trained on, four fifths in this phase")
    parser.add_argument("--steps", type=int, default=20, help="of the plain formulation in each of them")
    parser.add_argument("--compile", action="store_true", help="the soft step by torch.compile")
    main(parser.parse_args())
