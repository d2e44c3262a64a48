#!/usr/bin/env python3
"""The first steps of a search's weights: whether the loss falls, or the learning rate overshoots."""

import argparse
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import torch
from steps import CONFIG, a_search, advance

from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.space import read_space
from fbnet.training.metrics import Means

AT_ONCE = 10  # steps whose means are one row


def main(arguments: argparse.Namespace) -> None:
    space, device = read_space(arguments.space), choose_device(arguments.threads)
    dataset = read_dataset(arguments.data, space.resolution)
    weights = CONFIG["search"]["weights"] | {"warmup_epochs": arguments.warmup}
    print("seed\tsteps\trate\tcross entropy, mean\tlargest\taccuracy\tgradient's norm")
    for seed in arguments.seeds:
        changes = {
            "seed": seed,
            "batch_size": arguments.batch,
            "sampling": arguments.sampling,
            "precision": arguments.precision,
            "weights": weights,
        }
        search = a_search(space, dataset, device, **changes)
        search.phase = "weights"
        search.begin()
        steps = []
        for images, labels in search.batches["weights"].training(search.seed(0)):
            search.means = Means(device)
            advance(search, images, labels)
            means = search.means.read(search.ranks)
            norm = torch.stack([p.grad.norm() for p in search.supernet.weights() if p.grad is not None]).norm().item()
            steps.append((means["ce"], means["top1"], norm))
            if len(steps) % AT_ONCE == 0:
                entropies, accuracies, norms = zip(*steps[-AT_ONCE:], strict=True)
                told = (f"{mean(entropies):.3f}", f"{max(entropies):.3f}", f"{mean(accuracies):.3f}", f"{mean(norms):.1f}")
                print(seed, len(steps), f"{float(search.rate):.4f}", *told, sep="\t", flush=True)
            if len(steps) >= arguments.steps:
                break


if __name__ == "__main__":
    default = CONFIG["search"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of a prepared dataset, as results/data/cifar10")
    parser.add_argument("--space", default=CONFIG["space"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=default["batch_size"])
    parser.add_argument(
        "--warmup", type=float, default=default["weights"]["warmup_epochs"], help="epochs in which the rate rises"
    )
    parser.add_argument("--sampling", choices=["soft", "single_path"], default=default["sampling"])
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default=default["precision"])
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: all)")
    main(parser.parse_args())
