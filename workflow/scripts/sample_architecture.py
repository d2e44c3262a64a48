#!/usr/bin/env python3
"""Sample architectures from a trained supernet, within a latency budget if there is one: the result, or those for a race."""

import argparse
from pathlib import Path

import pandas as pd

from fbnet.architecture.budgets import add_options, read_budgets
from fbnet.architecture.entrants import entrants, race_seed
from fbnet.architecture.program import Budget
from fbnet.architecture.rules import RULES
from fbnet.architecture.sampling import described, draw, log_probability
from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.latency import LatencyTable, read_table
from fbnet.runtime import log, replacing, run
from fbnet.search import one_shot_accuracies, read_supernet
from fbnet.space import make_space


def main(arguments: argparse.Namespace) -> None:
    supernet = read_supernet(arguments.supernet)
    space, classes = make_space(supernet["space"]), len(supernet["classes"])
    table = read_table(arguments.table, space, classes)
    budgets = read_budgets(arguments, table, classes)
    theta = [theta.tolist() for theta in supernet["theta"]]
    if arguments.entrants:
        rows = _entrants(arguments, table, theta, classes, budgets, race_seed(supernet["settings"]["seed"]))
        with replacing(arguments.out) as (out,):
            rows.to_csv(out, sep="\t", index=False, float_format="%.6f")
        log.info("%d architectures for a race: %s", len(rows), arguments.out)
        return
    drawn = draw(space, theta, arguments.method, max(arguments.count, arguments.judged), arguments.seed, budgets)
    accuracies = []
    if arguments.judged > arguments.count:
        device = choose_device(arguments.threads, supernet["settings"]["gpu"])
        accuracies = one_shot_accuracies(supernet, read_dataset(arguments.data), [ops for ops, _ in drawn], device)
        order = sorted(range(len(drawn)), key=lambda number: -accuracies[number])[: arguments.count]
        drawn, accuracies = ([values[number] for number in order] for values in (drawn, accuracies))
    alone = arguments.method == "argmax" and arguments.count == 1
    names = [arguments.name if alone else f"{arguments.name}_{number}" for number in range(1, len(drawn) + 1)]
    rows = described(table, classes, {name: ops for name, (ops, _) in zip(names, drawn, strict=True)})
    rows.insert(2, "log_prob", [log_prob for _, log_prob in drawn])
    if accuracies:
        rows["supernet_top1"] = accuracies
    with replacing(arguments.out) as (out,):
        rows.to_csv(out, sep="\t", index=False, float_format="%.6f")
    by = f"{arguments.method}, the best of {arguments.judged} inside the supernet" if accuracies else arguments.method
    within = f" within {' and '.join(map(str, budgets))}" if budgets else ""
    log.info("Derived by %s%s: %s (%s)", by, within, ", ".join(names), arguments.out)


def _entrants(
    arguments: argparse.Namespace, table: LatencyTable, theta: list, classes: int, budgets: list[Budget], seed: int
) -> pd.DataFrame:
    chosen = entrants(table, theta, arguments.count, arguments.rules, arguments.entrants, budgets, seed)
    rows = described(table, classes, {f"{arguments.name}_{number}": ops for number, ops in enumerate(chosen, 1)})
    rows.insert(2, "log_prob", [log_probability(table.space, theta, ops) for ops in chosen])
    return rows.assign(chosen_by=list(chosen.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    add_options(parser)
    parser.add_argument("--method", choices=["argmax", "softmax"], default="argmax", help="the most probable, or random samples")
    parser.add_argument("--count", type=int, default=1, help="number of architectures")
    parser.add_argument("--judged", type=int, default=1, help="of so many, keep those with the best one-shot accuracies")
    parser.add_argument("--entrants", type=int, default=0, help="for a race: so many, by theta, by rules, by both, and at random")
    parser.add_argument("--rules", nargs="*", choices=RULES, default=[], help="for a race: these take part beside theta")
    parser.add_argument("--data", type=Path, help="folder of the prepared dataset, for these; its test set is not touched")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads for these, where there is no GPU (0: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the softmax samples")
    parser.add_argument("--name", required=True, help="name of the architecture; of several, _1, _2, … are appended")
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
