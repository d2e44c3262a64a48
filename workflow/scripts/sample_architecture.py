#!/usr/bin/env python3
"""Sample architectures from a trained supernet, within a latency budget if there is one, and what rules choose beside them."""

import argparse
import math
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.architecture.sampling import RULES, by_rule, described, draw, log_probability
from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.errors import InputError
from fbnet.latency import read_table
from fbnet.runtime import log, replacing, run
from fbnet.search import one_shot_accuracies, read_supernet
from fbnet.space import make_space


def main(arguments: argparse.Namespace) -> None:
    supernet = read_supernet(arguments.supernet)
    space, classes = make_space(supernet["space"]), len(supernet["classes"])
    table = read_table(arguments.table, space, classes)
    budget_us = in_us(arguments.latency_budget, table) if arguments.latency_budget else math.inf
    theta = [theta.tolist() for theta in supernet["theta"]]
    ruled = {by_rule(table, rule, budget_us): rule for rule in arguments.rules}
    wanted = arguments.count + len(arguments.rules) - len(ruled)  # in all so many architectures, also where rules agree
    most = max(wanted, arguments.judged)
    log_probs = dict(draw(table, theta, arguments.method, most + len(ruled), arguments.seed, budget_us))
    drawn = [ops for ops in log_probs if ops not in ruled][:most]
    log_probs |= {ops: log_probability(table, theta, ops) for ops in ruled}
    accuracies = {}
    if arguments.judged > arguments.count:
        device = choose_device(arguments.threads, supernet["settings"]["gpu"])
        judged = [*drawn, *ruled]
        accuracies = dict(zip(judged, one_shot_accuracies(supernet, read_dataset(arguments.data), judged, device), strict=True))
        drawn.sort(key=lambda ops: -accuracies[ops])
    drawn = drawn[:wanted]
    if arguments.rules and len(drawn) < wanted:
        raise InputError(
            f"only {len(drawn) + len(ruled)} architectures of {wanted + len(ruled)} for the race were found: lower sample.count, "
            f"or allow more latency"
        )
    chosen = dict.fromkeys(drawn, arguments.method) | ruled
    alone = arguments.method == "argmax" and arguments.count == 1 and not ruled
    names = [arguments.name if alone else f"{arguments.name}_{number}" for number in range(1, len(chosen) + 1)]
    rows = described(table, classes, dict(zip(names, chosen, strict=True)))
    rows.insert(2, "log_prob", [log_probs[ops] for ops in chosen])
    if ruled:
        rows["chosen_by"] = list(chosen.values())
    if accuracies:
        rows["supernet_top1"] = [accuracies[ops] for ops in chosen]
    with replacing(arguments.out) as (out,):
        rows.to_csv(out, sep="\t", index=False, float_format="%.6f")
    by = f"{arguments.method}, the best of {arguments.judged} inside the supernet" if accuracies else arguments.method
    by += "".join(f", and by {rule}" for rule in ruled.values())
    within = "" if math.isinf(budget_us) else f" within {budget_us:.0f} µs"
    log.info("Derived by %s%s: %s (%s)", by, within, ", ".join(names), arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV)")
    parser.add_argument("--method", choices=["argmax", "softmax"], default="argmax", help="the most probable, or random samples")
    parser.add_argument("--count", type=int, default=1, help="number of architectures")
    parser.add_argument("--judged", type=int, default=1, help="of so many, keep those with the best one-shot accuracies")
    parser.add_argument("--rules", nargs="*", choices=RULES, default=[], help="beside them what these choose, within the budget")
    parser.add_argument("--data", type=Path, help="folder of the prepared dataset, for these; its test set is not touched")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads for these, where there is no GPU (0: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the softmax samples")
    parser.add_argument("--latency-budget", help="the most that they may take: 8ms, 8500us, fbnet_c, 0.8 * fbnet_c")
    parser.add_argument("--name", required=True, help="name of the architecture; of several, _1, _2, … are appended")
    parser.add_argument("--out", type=Path, required=True, help="the architectures to write (TSV)")
    run(parser, main)
