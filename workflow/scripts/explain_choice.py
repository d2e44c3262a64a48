#!/usr/bin/env python3
"""Say what a chosen architecture costs of each budget and which of them binds, and what else might have been chosen."""

import argparse
from pathlib import Path

import pandas as pd

from fbnet.architecture.alternatives import alternatives
from fbnet.architecture.budgets import add_options, costs, read_budgets
from fbnet.architecture.sampling import log_probability
from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.latency import read_header, read_table
from fbnet.runtime import log, replacing, run
from fbnet.search import one_shot_accuracies, read_supernet
from fbnet.space import make_space, read_architectures


def main(arguments: argparse.Namespace) -> None:
    supernet = read_supernet(arguments.supernet)
    space, classes = make_space(supernet["space"]), len(supernet["classes"])
    table = read_table(arguments.table, space, classes)
    budgets = read_budgets(arguments, table, classes)
    theta = [row.tolist() for row in supernet["theta"]]
    chosen, *_ = read_architectures(arguments.architectures, space)
    found = alternatives(space, theta, chosen["ops"], budgets)
    every = {one.ops: None for one in found}
    device = choose_device(arguments.threads, supernet["settings"]["gpu"])
    top1 = dict(zip(every, one_shot_accuracies(supernet, read_dataset(arguments.data), [*every], device), strict=True))
    rows = []
    for one in found:
        row = {"what": one.what, "budget": "", "most": None, "used": None, "binds": "", "ops": " ".join(one.ops)}
        if one.budget:
            used = one.budget.of(space.numbers(chosen["ops"]))
            row |= {"budget": one.budget.name, "most": one.budget.most, "used": used, "binds": "yes" if one.binds else "no"}
        row |= {"latency_us": table.predict(one.ops)} | costs(space, one.ops, classes, read_header(arguments.table))
        row |= {"log_prob": log_probability(space, theta, one.ops), "supernet_top1": top1[one.ops]}
        rows.append(row)
    with replacing(arguments.out) as (out,):
        pd.DataFrame(rows).to_csv(out, sep="\t", index=False, float_format="%.6f")
    bound = " and ".join(one.budget.name for one in found if one.binds) or "no budget"
    log.info("What binds is %s; alternatives: %s", bound, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    add_options(parser)
    parser.add_argument("--architectures", type=Path, required=True, help="what was chosen: the first of these (TSV)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared dataset; its test set is not touched")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--out", type=Path, required=True, help="the table to write (TSV)")
    run(parser, main)
