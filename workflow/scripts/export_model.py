#!/usr/bin/env python3
"""Export a network as files that other tools load (torch.export, ONNX, safetensors), each checked, and its model card."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from fbnet.architecture import find
from fbnet.architecture.card import card
from fbnet.architecture.export import OPSET, export
from fbnet.architecture.lookup import add_options
from fbnet.data.batches import Batches
from fbnet.data.dataset import read_dataset
from fbnet.errors import InputError
from fbnet.latency import device_of, read_header, read_table
from fbnet.network import Network, cut_out
from fbnet.provenance import versions
from fbnet.runtime import log, replacing, run
from fbnet.search import read_supernet
from fbnet.space import Architecture


def main(arguments: argparse.Namespace) -> None:
    architecture = find(arguments.arch, arguments.space, arguments.classes, arguments.name)
    log.info("%s: %s", architecture.name, architecture)
    facts = {}
    if arguments.table:
        latency_us = read_table(arguments.table, architecture.space, architecture.classes).predict(architecture.ops)
        header = read_header(arguments.table)
        facts["predicted latency"] = f"{latency_us:,.0f} µs on {device_of(header)}"
    notes = {"name": architecture.name, "architecture": str(architecture), "space": json.dumps(architecture.space.definition)}
    if arguments.supernet:
        network, normalisation = _from_supernet(architecture, arguments.supernet, arguments.data, facts, notes)
    else:
        torch.manual_seed(0)
        network = Network(architecture.space, architecture.ops, architecture.classes)
        normalisation = "normalised as in its training"
        facts["weights"] = "random: train the network before use"
    found = versions()
    facts["made with"] = f"PyTorch {found['torch']}, ONNX opset {OPSET}"

    out = arguments.out
    paths = [out.with_suffix(suffix) for suffix in (".pt2", ".onnx", ".safetensors", ".md")]
    with replacing(*paths) as (program, onnx, weights, page):
        differences = export(architecture, network, program, onnx, weights, notes | {"normalisation": normalisation})
        page.write_text(card(architecture, facts, differences, normalisation, out.stem))
    worst = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    log.info("Loaded again, logits differ at most by (of the largest logit): %s.", worst)
    log.info("Files: %s", ", ".join(map(str, paths)))


def _from_supernet(architecture: Architecture, supernet_path: Path, data: Path | None, facts: dict, notes: dict):
    """The network with the supernet's weights, and how its images are normalised; adds to the card's facts and the notes."""
    if not data:
        raise InputError("--data is not set, but --supernet needs it: the batch norms are estimated anew on the training images")
    supernet, dataset = read_supernet(supernet_path), read_dataset(data)
    classes = supernet["classes"]
    if supernet["space"] != architecture.space.definition or len(classes) != architecture.classes:
        raise InputError(f"{supernet_path} is of space {supernet['space']['name']} with {len(classes)} classes: not of this one")
    if list(dataset.classes) != list(classes):
        raise InputError(f"the dataset {data} has other classes than {supernet_path} was trained on")
    batches = Batches(dataset, np.arange(len(dataset.train_labels)), 256, torch.device("cpu"))
    network = cut_out(supernet["weights"], architecture.space, architecture.ops, architecture.classes, batches.for_norms())
    facts["weights"] = "the supernet's, which all architectures share; not trained further, batch norms estimated anew"
    if list(architecture.ops) == supernet["ops"]:
        facts["top-1 accuracy"] = f"{supernet['top1']:.1%} on the images that trained theta; the test set is untouched"
    notes["classes"] = json.dumps(list(classes))
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (dataset.mean, dataset.std))
    return network, f"RGB in 0–1, minus ({mean}), divided by ({std})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--supernet", type=Path, help="supernet.pt to take the weights from (default: random ones)")
    parser.add_argument("--data", type=Path, help="with --supernet: folder of the prepared dataset")
    parser.add_argument("--table", type=Path, help="latency table (TSV), for the card")
    parser.add_argument("--out", type=Path, required=True, help="the files to write, whatever the suffix")
    run(parser, main)
