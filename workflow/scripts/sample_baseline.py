#!/usr/bin/env python3
"""Baselines to compare a search's result with: what a rule of thumb chooses, random architectures, or published ones."""

import argparse
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.architecture.budgets import add_options, latency_budget, read_budgets
from fbnet.architecture.rules import RULES
from fbnet.architecture.sampling import by_rule, described, draw_blindly, draw_spread
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
    """Architectures that keep the budgets; without one of latency, that of the first architecture given, or the slowest's."""
    if arguments.spread is not None:
        budgets_us = [in_us(budget, table) for budget in arguments.spread]
        most_us = min([max(budgets_us, default=table.most_us), table.most_us])
        least_us = (table.least_us + min([*budgets_us, most_us])) / 2
        return draw_spread(table, arguments.count, least_us, most_us, arguments.seed)
    others = read_budgets(arguments, table, arguments.classes)
    most_us = others.pop(0).most if arguments.latency_budget else 2 * table.most_us
    if arguments.architectures:
        first, *_ = read_architectures(arguments.architectures, table.space)
        most_us = table.predict(first["ops"])
    if arguments.rule:
        return [by_rule(table.space, arguments.rule, [latency_budget(table, most_us), *others])]
    within = [latency_budget(table, min(most_us, table.most_us)), *others]
    return draw_blindly(table.space, arguments.count, within, arguments.seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--published", nargs="+", help="these published networks")
    parser.add_argument("--rule", choices=RULES, help="or: what this rule chooses within the budgets")
    parser.add_argument(
        "--spread", nargs="*", metavar="BUDGET", help="or: random ones, from half of the least of these latencies to the largest"
    )
    parser.add_argument("--architectures", type=Path, help="the latency budget is what the first of these (TSV) takes")
    parser.add_argument("--count", type=int, default=8, help="number of random architectures")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random architectures")
    parser.add_argument("--name", default="random", help="their names: this with _1, _2, … appended, but for a rule")
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
