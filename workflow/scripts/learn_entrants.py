#!/usr/bin/env python3
"""Choose more architectures for a race, by what its first trainings tell of theta and the rules."""

import argparse
from pathlib import Path

from fbnet.architecture.budgets import add_options, read_budgets
from fbnet.architecture.entrants import learned, race_seed
from fbnet.architecture.rules import RULES
from fbnet.architecture.sampling import described, log_probability
from fbnet.evaluation.trained import read_trained
from fbnet.latency import read_table
from fbnet.runtime import log, replacing, run
from fbnet.search import read_supernet
from fbnet.space import make_space


def main(arguments: argparse.Namespace) -> None:
    supernet = read_supernet(arguments.supernet)
    space, classes = make_space(supernet["space"]), len(supernet["classes"])
    table = read_table(arguments.table, space, classes)
    budgets = read_budgets(arguments, table, classes)
    theta = [theta.tolist() for theta in supernet["theta"]]
    seed = race_seed(supernet["settings"]["seed"])
    networks = [read_trained(path) for path in arguments.trained]
    trained = {tuple(network["ops"]): network["validation_top1"] for network in networks}
    chosen = learned(space, theta, arguments.rules, trained, arguments.count, budgets, seed)
    names = [f"{arguments.name}_{number}" for number in range(len(networks) + 1, len(networks) + len(chosen) + 1)]
    rows = described(table, classes, dict(zip(names, chosen, strict=True)))
    rows.insert(2, "log_prob", [log_probability(space, theta, ops) for ops in chosen])
    with replacing(arguments.out) as (out,):
        rows.assign(chosen_by=list(chosen.values())).to_csv(out, sep="\t", index=False, float_format="%.6f")
    log.info("%d more architectures for the race, the first by %s: %s", len(rows), next(iter(chosen.values())), arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    add_options(parser)
    parser.add_argument("--trained", type=Path, nargs="+", required=True, help="network.pt of each that is trained")
    parser.add_argument("--rules", nargs="*", choices=RULES, default=[], help="what may have foretold it beside theta")
    parser.add_argument("--count", type=int, required=True, help="number of architectures")
    parser.add_argument(
        "--name", required=True, help="of the search, to which numbers are appended that go on from the trained ones"
    )
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
