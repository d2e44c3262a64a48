#!/usr/bin/env python3
"""Export a network as files that other tools load (torch.export, ONNX, safetensors), each checked, and its model card."""

import argparse
from pathlib import Path

from fbnet.architecture import find
from fbnet.architecture.card import choice, latencies
from fbnet.architecture.export import SUFFIXES, TIMM, export
from fbnet.architecture.lookup import add_options
from fbnet.data.dataset import read_dataset
from fbnet.errors import InputError
from fbnet.evaluation.integers import INT8, write_int8
from fbnet.evaluation.weights import inherited, trained, untrained
from fbnet.latency import read_header
from fbnet.runtime import log, run


def main(arguments: argparse.Namespace) -> None:
    if (arguments.supernet or arguments.trained) and not arguments.data:
        raise InputError("--data is not set, but --supernet and --trained need it: the dataset says how images are normalised")
    if arguments.trained:
        model = trained(arguments.trained, arguments.data)
    else:
        architecture = find(arguments.arch, arguments.space, arguments.classes, arguments.name)
        supernet = arguments.supernet
        model = inherited(architecture, supernet, arguments.data) if supernet else untrained(architecture)
    log.info("Weights of %s: %s.", model.architecture.name, model.facts["weights"])
    rows = latencies(model.architecture, arguments.table, arguments.measurement)
    if arguments.choice:
        rows |= choice(arguments.choice, model.architecture.space)
    integers = arguments.out.with_suffix(INT8)
    integers.unlink(missing_ok=True)  # of an earlier export
    if arguments.data and any(read_header(table).get("dtype") == "int8" for table in arguments.table):
        dataset = read_dataset(arguments.data)
        differences = export(model, rows, arguments.out, lambda onnx: {"int8": write_int8(onnx, integers, dataset)})
    else:
        differences = export(model, rows, arguments.out)
    worst = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    log.info("Loaded again, logits differ at most by (of the largest logit): %s.", worst)
    made = filter(Path.exists, map(arguments.out.with_suffix, (*SUFFIXES, TIMM, INT8)))
    log.info("Files: %s", ", ".join(map(str, made)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    add_options(parser, what)
    trained_help = "network.pt of training runs of one network: the one that validates best is taken"
    what.add_argument("--trained", type=Path, nargs="+", metavar="FILE", help=trained_help)
    parser.add_argument("--supernet", type=Path, help="supernet.pt from which --arch inherits weights (default: random ones)")
    parser.add_argument("--data", type=Path, help="with --supernet or --trained: folder of the prepared dataset")
    parser.add_argument(
        "--table", type=Path, nargs="*", default=[], help="latency tables (TSV), for the card; int8, if one is of that"
    )
    parser.add_argument("--measurement", type=Path, nargs="*", default=[], help="measurements beside them, if they exist")
    parser.add_argument("--choice", type=Path, help="table of explain_choice, for the card")
    parser.add_argument("--out", type=Path, required=True, help="the files to write, whatever the suffix")
    run(parser, main)
