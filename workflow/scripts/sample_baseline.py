#!/usr/bin/env python3
"""Baselines to compare a search's result with: random architectures within the same latency budget, or published ones."""

import argparse
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.architecture.sampling import described, draw_blindly
from fbnet.errors import InputError
from fbnet.latency import read_table
from fbnet.runtime import log, replacing, run
from fbnet.space import in_space, read_architectures, read_space


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    table = read_table(arguments.table, space, arguments.classes)
    if arguments.published:
        chosen = {f"published_{name}": in_space(name, space) for name in arguments.published}
    else:
        if arguments.latency_budget:
            budget_us = in_us(arguments.latency_budget, table)
        elif arguments.architectures:
            first, *_ = read_architectures(arguments.architectures, space)
            budget_us = table.predict(first["ops"])
        else:
            raise InputError("one of --latency-budget, --architectures and --published is needed")
        drawn = draw_blindly(table, arguments.count, budget_us, arguments.seed)
        chosen = {f"{arguments.name}_{number}": ops for number, ops in enumerate(drawn, 1)}
    with replacing(arguments.out) as (out,):
        described(table, arguments.classes, chosen).to_csv(out, sep="\t", index=False, float_format="%.6f")
    log.info("%d architectures: %s", len(chosen), arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV)")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--latency-budget", help="most predicted latency of a random one: 8ms, 8500us, fbnet_c, 0.8 * fbnet_c")
    parser.add_argument("--architectures", type=Path, help="or: that of the first of these (TSV)")
    parser.add_argument("--published", nargs="+", help="or: these published networks")
    parser.add_argument("--count", type=int, default=8, help="number of random architectures")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random architectures")
    parser.add_argument("--name", default="random", help="their names: this with _1, _2, … appended")
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
