#!/usr/bin/env python3
"""Bring all results together: a summary of networks, how they compare, on all devices too, and what follows in sentences."""

import argparse
from pathlib import Path

import pandas as pd

from fbnet.evaluation.devices import device_sentences, devices
from fbnet.evaluation.evidence import comparisons
from fbnet.evaluation.findings import findings
from fbnet.evaluation.ranking import ranking
from fbnet.evaluation.results import read_one_shot, read_tsv, summarise, training_runs
from fbnet.mappings import read_mapping
from fbnet.runtime import log, replacing, run
from fbnet.space import read_space


def main(arguments: argparse.Namespace) -> None:
    results, space, classes = arguments.results, read_space(arguments.space), arguments.classes
    plan = read_mapping(arguments.plan, "plan")
    runs = training_runs(results, plan, arguments.trainings)
    summary = summarise(results, plan, runs, space, classes)
    compared = comparisons(summary)
    one_shot = {search: read_one_shot(results, search) for search in summary["search"].dropna()}
    ranked = ranking(summary, runs, one_shot)
    races = {name: read_tsv(results / f"race/{name}/race.tsv") for name, entry in plan.items() if entry["raced"]}
    supernets = {name: entry["supernet"] for name, entry in plan.items() if entry["kind"] == "found"}
    found = findings(results, summary, compared, ranked, races, supernets, space, classes)
    side = devices(results, plan, summary, space, classes)
    found += [("all", "device", text) for text in device_sentences(side, summary)]
    tables = {"summary": summary, "runs": runs, "comparisons": compared, "ranking": ranked, "devices": side}
    tables["findings"] = pd.DataFrame(found, columns=["about", "kind", "text"])
    with replacing(*(arguments.out / f"{name}.tsv" for name in tables)) as paths:
        for table, path in zip(tables.values(), paths, strict=True):
            table.to_csv(path, sep="\t", index=False, float_format="%.6g")
    for about, kind, text in found:
        (log.warning if kind == "warning" else log.info)("%s%s", "" if about == "all" else f"{about}: ", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    parser.add_argument("--plan", required=True, help="JSON: the sets of networks; of each kind, target, baseline, seed, budget")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--trainings", type=int, default=1, help="training runs of each network")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for summary, runs, comparisons, ranking, devices, findings (.tsv)"
    )
    run(parser, main)
