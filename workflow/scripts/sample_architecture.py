#!/usr/bin/env python3
"""Sample architectures from a trained supernet, within a latency budget if there is one; needs no GPU and no dataset."""

import argparse
import math
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.architecture.sampling import described, draw
from fbnet.latency import read_table
from fbnet.runtime import log, replacing, run
from fbnet.search import read_supernet
from fbnet.space import make_space


def main(arguments: argparse.Namespace) -> None:
    supernet = read_supernet(arguments.supernet)
    space, classes = make_space(supernet["space"]), len(supernet["classes"])
    table = read_table(arguments.table, space, classes)
    budget_us = in_us(arguments.latency_budget, table) if arguments.latency_budget else math.inf
    theta = [theta.tolist() for theta in supernet["theta"]]
    drawn = draw(table, theta, arguments.method, arguments.count, arguments.seed, budget_us)
    alone = arguments.method == "argmax" and arguments.count == 1
    names = [arguments.name if alone else f"{arguments.name}_{number}" for number in range(1, len(drawn) + 1)]
    rows = described(table, classes, {name: ops for name, (ops, _) in zip(names, drawn, strict=True)})
    rows.insert(2, "log_prob", [log_prob for _, log_prob in drawn])
    with replacing(arguments.out) as (out,):
        rows.to_csv(out, sep="\t", index=False, float_format="%.6f")
    within = "" if math.isinf(budget_us) else f" within {budget_us:.0f} µs"
    log.info("Derived by %s%s: %s (%s)", arguments.method, within, ", ".join(names), arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV)")
    parser.add_argument("--method", choices=["argmax", "softmax"], default="argmax", help="the most probable, or random samples")
    parser.add_argument("--count", type=int, default=1, help="number of architectures")
    parser.add_argument("--seed", type=int, default=0, help="seed of the softmax samples")
    parser.add_argument("--latency-budget", help="the most that they may take: 8ms, 8500us, fbnet_c, 0.8 * fbnet_c")
    parser.add_argument("--name", required=True, help="name of the architecture; of several, _1, _2, … are appended")
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
