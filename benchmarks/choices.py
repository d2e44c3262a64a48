#!/usr/bin/env python3
"""Seconds of a choice by the integer program, within one budget and within five kinds at once, on spaces of several sizes."""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

from fbnet.architecture.budgets import budget_of, latency_budget
from fbnet.architecture.program import best
from fbnet.latency import LatencyTable
from fbnet.network import size
from fbnet.space import read_space


def main(arguments: argparse.Namespace) -> None:
    print("space\tlayers × cells\tbudgets\tchoices\tmedian ms\t95 % ms\tlargest ms\tminutes for 10,000")
    for name in arguments.space:
        space = read_space(name)
        rng = np.random.default_rng(0)
        tables = [made_up(space, rng) for _ in range(2)]
        sizes = [np.log1p([size([cell])[0] for cell in layer]) for layer in space.layers]  # more MACs are worth more
        for several in (False, True):
            seconds = []
            for _ in range(arguments.choices):
                values = [row + rng.normal(0, 1, len(row)) for row in sizes]
                budgets = drawn(tables, space, rng, several)
                start = time.perf_counter()
                chosen = next(best(space, values, budgets), None)
                seconds.append(time.perf_counter() - start)
                assert chosen is None or all(budget.allows(chosen) for budget in budgets)
            ms = 1000 * np.array(seconds)
            cells = f"{len(space.layers)} × {max(map(len, space.layers))}"
            numbers = statistics.median(ms), np.percentile(ms, 95), ms.max(), ms.mean() / 6
            print(f"{name}\t{cells}\t{len(budgets)}\t{len(ms)}\t" + "\t".join(f"{number:.1f}" for number in numbers), flush=True)


def made_up(space, rng: np.random.Generator) -> LatencyTable:
    """Latencies by MACs, each up to twice as fast or slow."""
    rows = [[(1 + size([cell])[0] / 1e4) * rng.uniform(0.5, 2) for cell in layer] for layer in space.layers]
    several = len(space.heads) > 1
    return LatencyTable(space, (10.0,) * (2 if several else 3), tuple(map(tuple, rows)), (10.0,) * len(space.heads) * several)


def drawn(tables, space, rng: np.random.Generator, several: bool) -> list:
    """A latency budget between the least and the most; and with it one on another device, and of MACs, parameters and memory."""
    loose = [latency_budget(table, 1.0, f"latency_{number}") for number, table in enumerate(tables[: 1 + several])]
    loose += [budget_of(f"budgets.{kind}", 1.0, space, 10, {}) for kind in ("macs", "params", "memory") if several]
    budgets = []
    for budget in loose:
        gather = max if budget.peak else sum
        least, most = (gather([budget.fixed, *map(which, budget.costs)]) for which in (min, max))
        budgets.append(replace(budget, most=least + rng.uniform(0.2, 0.8) * (most - least)))
    return budgets


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", nargs="+", default=["fbnet_cifar", "fbnet_all"], help="spaces: names or YAML files")
    parser.add_argument("--choices", type=int, default=500, help="choices of each kind")
    main(parser.parse_args())
