#!/usr/bin/env python3
"""What profile_latency delivers: seconds for all entries, the difference from one table to the next, and the prediction.

Twice: measures 32 fresh random networks (uniform draws), a table, and the same networks again. The test-retest
error is what the networks' latencies differ by from before to after.

    python benchmarks/latency_tables.py --space fbnet_224 --engine torch
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import numpy as np

from fbnet.latency import Target
from fbnet.latency.machine import Watch, describe
from fbnet.latency.profiling import measure, measure_networks
from fbnet.latency.target import add_options, from_options
from fbnet.latency.validation import sentence, statistics
from fbnet.runtime import Progress
from fbnet.space import read_space
from fbnet.terminal import replace_unknown_characters

PRECISION, RUNS = 0.02, 100  # the defaults of config.yaml
ROUNDS = 8


def bar(rounds):
    return Progress(rounds, desc="rounds", unit="round")


def main(arguments: argparse.Namespace) -> None:
    space, target = read_space(arguments.space), from_options(arguments)
    target.check("latency")
    print(f"space {space.name}; " + ", ".join(f"{key} {value}" for key, value in target.settings().items()))
    print(", ".join(f"{key} {value}" for key, value in describe(target).items()))
    rng = random.Random(arguments.seed)
    tables = [_table(space, target, rng, arguments.networks) for _ in range(2)]
    one, other = (np.array([table[key] for key in tables[0]]) for table in tables)
    heavy = (one + other) / 2 > 0.1 * (one.mean() + other.mean()) / 2
    scale = float(np.median(other[heavy] / one[heavy]))
    for name, factor in (("from table to table, an entry differs by", 1.0), (f"rescaled by {scale:.3f}", scale)):
        difference = np.abs(other / factor - one) / ((one + other / factor) / 2)
        everything, counts = np.percentile(difference[one + other > 0], [50, 95]), np.percentile(difference[heavy], [50, 95])
        print(
            f"{name}: median {everything[0]:.1%}, 95th percentile {everything[1]:.1%} "
            f"({counts[0]:.1%}, {counts[1]:.1%} of the {heavy.sum()} entries above a tenth of the mean)"
        )


def _table(space, target: Target, rng: random.Random, count: int) -> dict[tuple, float]:
    """Measure a table and compare it with fresh networks; its latencies by layer and operator."""
    watch = Watch()
    fresh = [tuple(rng.choice(layer).op for layer in space.layers) for _ in range(count)]
    before = measure_networks(space, space.classes, target, fresh, ROUNDS, 1, bar)
    start = time.monotonic()
    found = measure(space, space.classes, target, PRECISION, RUNS, bar)
    seconds = time.monotonic() - start
    after = measure_networks(space, space.classes, target, fresh, ROUNDS, 1, bar)
    table = {(row["layer"], row["op"]): row["latency_us"] for row in found.rows}
    cells = (space.network_cells(ops, space.classes) for ops in fresh)
    predicted = [sum(table[cell.layer, cell.op] for cell in path) for path in cells]
    told, retest = statistics(predicted, (before.us[0] + after.us[0]) / 2), statistics(before.us[0], after.us[0])
    ratio = told["mean_error"] / retest["mean_error"]
    print(f"table: {len(table)} entries in {seconds:.1f} s. {sentence(told, retest, count)} MAPE / test-retest MAPE {ratio:.1f}")
    seen = watch.report(max(before.variability, found.variability, after.variability))
    print(", ".join(f"{key} {value}" for key, value in seen.items()), flush=True)
    return table


if __name__ == "__main__":
    replace_unknown_characters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="fbnet_224")
    add_options(parser)
    parser.add_argument("--networks", type=int, default=32, help="fresh random networks each time")
    parser.add_argument("--seed", type=int, default=7, help="of the fresh networks")
    main(parser.parse_args())
