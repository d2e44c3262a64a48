#!/usr/bin/env python3
"""Baselines to compare a search's result with: what a rule of thumb chooses, random architectures, or published ones."""

import argparse
import math
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.architecture.sampling import RULES, by_rule, described, draw_blindly, draw_spread
from fbnet.latency import LatencyTable, read_table
from fbnet.runtime import log, replacing, run
from fbnet.space import in_space, read_architectures, read_space


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    table = read_table(arguments.table, space, arguments.classes)
    if arguments.published:
        chosen = {f"published_{name}": in_space(name, space) for name in arguments.published}
    else:
        drawn = _chosen(arguments, table)
        names = [arguments.name] if arguments.rule else [f"{arguments.name}_{number}" for number in range(1, len(drawn) + 1)]
        chosen = dict(zip(names, drawn, strict=True))
    with replacing(arguments.out) as (out,):
        described(table, arguments.classes, chosen).to_csv(out, sep="\t", index=False, float_format="%.6f")
    log.info("%d architectures: %s", len(chosen), arguments.out)


def _chosen(arguments: argparse.Namespace, table: LatencyTable) -> list[tuple[str, ...]]:
    """Architectures that keep the budget; without one, that of the first architecture given, or what the slowest takes."""
    budgets_us = [in_us(budget, table) for budget in arguments.latency_budget]
    if arguments.architectures:
        first, *_ = read_architectures(arguments.architectures, table.space)
        budgets_us.append(table.predict(first["ops"]))
    most_us = max(budgets_us, default=math.inf)
    if arguments.rule:
        return [by_rule(table, arguments.rule, most_us)]
    most_us = min(most_us, table.most_us)
    if arguments.spread:
        least_us = (table.least_us + min([*budgets_us, most_us])) / 2
        return draw_spread(table, arguments.count, least_us, most_us, arguments.seed)
    return draw_blindly(table, arguments.count, most_us, arguments.seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV)")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--published", nargs="+", help="these published networks")
    parser.add_argument("--rule", choices=RULES, help="or: the most MACs, or the largest Σ log(1 + MACs), within the budget")
    parser.add_argument("--spread", action="store_true", help="or: random ones, from half of the least budget to the largest")
    parser.add_argument(
        "--latency-budget",
        nargs="+",
        default=[],
        help="most predicted latency: 8ms, 8500us, fbnet_c, 0.8 * fbnet_c; default: any",
    )
    parser.add_argument("--architectures", type=Path, help="or: that of the first of these (TSV)")
    parser.add_argument("--count", type=int, default=8, help="number of random architectures")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random architectures")
    parser.add_argument("--name", default="random", help="their names: this with _1, _2, … appended, but for a rule")
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
