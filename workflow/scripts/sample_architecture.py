#!/usr/bin/env python3
"""Sample architectures from a trained supernet; needs neither a GPU nor the dataset."""

import argparse
from pathlib import Path

import pandas as pd

from fbnet.blocks import size
from fbnet.checkpoint import read_supernet
from fbnet.latency import read_table
from fbnet.runtime import log, replacing, run
from fbnet.sampling import draw
from fbnet.space import make_space


def main(arguments: argparse.Namespace) -> None:
    supernet = read_supernet(arguments.supernet)
    space, classes = make_space(supernet["space"]), len(supernet["classes"])
    table = read_table(arguments.table, space, classes)
    drawn = draw(space, [theta.tolist() for theta in supernet["theta"]], arguments.method, arguments.count, arguments.seed)
    rows = []
    for number, (ops, log_prob) in enumerate(drawn, 1):
        macs, params = size((space.stem, *space.path(ops), space.head, space.classifier(classes)))
        name = arguments.name if arguments.method == "argmax" else f"{arguments.name}_{number}"
        rows.append((name, " ".join(ops), log_prob, table.predict(ops), macs, params))
    with replacing(arguments.out) as (out,):
        columns = ["name", "ops", "log_prob", "latency_us", "macs", "params"]
        pd.DataFrame(rows, columns=columns).to_csv(out, sep="\t", index=False, float_format="%.6f")
    wanted = 1 if arguments.method == "argmax" else arguments.count
    log.info("%d of %d drawn architectures are distinct: %s", len(rows), wanted, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV)")
    parser.add_argument("--method", choices=["argmax", "softmax"], default="argmax")
    parser.add_argument("--count", type=int, default=10, help="number of softmax draws")
    parser.add_argument("--seed", type=int, default=0, help="seed of the softmax draws")
    parser.add_argument("--name", required=True, help="name of the architecture; draws get _1, _2, … appended")
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
