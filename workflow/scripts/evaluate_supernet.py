#!/usr/bin/env python3
"""Evaluate architectures with the weights that they inherit from a supernet: does it foretell which are better?"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fbnet.data.batches import Batches, may_reside, split
from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.errors import InputError
from fbnet.network import cut_out
from fbnet.runtime import Progress, log, replacing, run
from fbnet.search import read_supernet
from fbnet.space import SearchSpace, make_space, read_architectures

BATCH = 250


def main(arguments: argparse.Namespace) -> None:
    supernet, dataset = read_supernet(arguments.supernet), read_dataset(arguments.data)
    space, classes, settings = make_space(supernet["space"]), supernet["classes"], supernet["settings"]
    if list(dataset.classes) != list(classes):
        raise InputError(f"the dataset {arguments.data} has other classes than {arguments.supernet} was trained on")
    device = choose_device(arguments.threads, settings["gpu"])
    _, architecture_split = split(len(dataset.train_labels), settings["weight_share"], settings["seed"])
    on_device = may_reside(dataset.train_images, device)
    batches = Batches(dataset, architecture_split, min(BATCH, len(architecture_split)), device, on_device)
    rows = [row for path in arguments.architectures for row in read_architectures(path, space)]
    weights = {name: value.to(device) for name, value in supernet["weights"].items()}
    top1 = [
        float(accuracy(weights, space, row["ops"], len(classes), batches))
        for row in Progress(rows, desc="evaluate", unit="network")
    ]
    found = {"name": [row["name"] for row in rows], "ops": [" ".join(row["ops"]) for row in rows], "supernet_top1": top1}
    with replacing(arguments.out) as (out,):
        pd.DataFrame(found).to_csv(out, sep="\t", index=False, float_format="%.6f")
    least, most = 100 * np.min(top1), 100 * np.max(top1)
    log.info("One-shot accuracy of %d architectures: %.1f%% to %.1f%%: %s", len(rows), least, most, arguments.out)


def accuracy(weights: dict[str, Tensor], space: SearchSpace, ops, classes: int, batches: Batches) -> Tensor:
    """The one-shot accuracy [] in [0, 1] of an architecture with a supernet's weights, on their device."""
    network = cut_out(weights, space, ops, classes, batches.for_norms())
    with torch.no_grad():
        hits = [(network(images).argmax(1) == labels).float().sum() for images, labels in batches.plain()]
    return torch.stack(hits).sum() / len(batches.indices)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared dataset; its test set is not touched")
    parser.add_argument("--architectures", type=Path, nargs="+", required=True, help="what to evaluate (TSV): name, ops")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--out", type=Path, required=True, help="the accuracies to write (TSV): name, ops, supernet_top1")
    run(parser, main)
