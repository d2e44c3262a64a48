#!/usr/bin/env python3
"""Bring all results together: one summary of the derived architectures and their baselines, and what follows in sentences."""

import argparse
from pathlib import Path

import pandas as pd

from fbnet.evaluation.results import findings, summarise
from fbnet.mappings import read_mapping
from fbnet.runtime import log, replacing, run
from fbnet.space import read_space


def main(arguments: argparse.Namespace) -> None:
    results, space, classes = arguments.results, read_space(arguments.space), arguments.classes
    summary = summarise(results, read_mapping(arguments.plan, "plan"), space, classes, arguments.trainings)
    found = findings(results, summary, space, classes)
    with replacing(arguments.summary, arguments.findings) as (table, texts):
        summary.to_csv(table, sep="\t", index=False, float_format="%.6g")
        pd.DataFrame(found, columns=["about", "kind", "text"]).to_csv(texts, sep="\t", index=False)
    for about, kind, text in found:
        (log.warning if kind == "warning" else log.info)("%s%s", "" if about == "all" else f"{about}: ", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    parser.add_argument("--plan", required=True, help="JSON: the sets of networks; of each kind, target, baseline, seed, budget")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--trainings", type=int, default=1, help="training runs of each network")
    parser.add_argument("--summary", type=Path, required=True, help="the summary to write (TSV)")
    parser.add_argument("--findings", type=Path, required=True, help="the sentences to write (TSV)")
    run(parser, main)
