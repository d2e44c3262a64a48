#!/usr/bin/env python3
"""Bring all results together: one summary of the networks found and their baselines, and what follows from it in sentences."""

import argparse
import math
from pathlib import Path

import pandas as pd

from fbnet.architecture import in_us
from fbnet.errors import InputError
from fbnet.evaluation.diagnosis import LEAST_RANKED, rank_correlation, warnings
from fbnet.evaluation.evidence import mean_and_sd, sentences
from fbnet.latency import read_header, read_table
from fbnet.mappings import read_mapping
from fbnet.runtime import log, replacing, run
from fbnet.space import read_space

COLUMNS = [
    *("network", "kind", "search", "baseline", "seed", "target", "budget_us", "ops"),
    *("predicted_us", "measured_us", "level", "latency_us", "macs", "params"),
    *("supernet_top1", "trainings", "top1", "top1_sd", "validation_top1", "search_s", "training_s"),
]


def main(arguments: argparse.Namespace) -> None:
    plan, results = read_mapping(arguments.plan, "plan"), arguments.results
    space = read_space(arguments.space)
    tables = {
        target: read_table(results / f"latency/{target}.tsv", space, arguments.classes)
        for target in {entry["target"] for entry in plan.values()}
    }
    rows = [row for name, entry in plan.items() for row in _rows(results, name, entry, tables, arguments.trainings)]
    summary = pd.DataFrame(rows, columns=COLUMNS)
    errors = {
        target: float(read_header(path)["mean_error"])
        for target in tables
        if (path := results / f"latency/{target}.validation.tsv").is_file()
    }
    findings = [(about, "comparison", text) for about, text in sentences(summary, errors)]
    for row in summary[summary["kind"] == "found"].to_dict("records"):
        findings += _findings(results, row, summary, space, arguments.classes, errors)
    with replacing(arguments.summary, arguments.findings) as (table, texts):
        summary.to_csv(table, sep="\t", index=False, float_format="%.6g")
        pd.DataFrame(findings, columns=["about", "kind", "text"]).to_csv(texts, sep="\t", index=False)
    for about, kind, text in findings:
        (log.warning if kind == "warning" else log.info)("%s%s", "" if about == "all" else f"{about}: ", text)


def _rows(results: Path, name: str, entry: dict, tables: dict, trainings: int) -> list[dict]:
    """The networks of one set: the first architecture of a search, or all those of a baseline."""
    table = tables[entry["target"]]
    architectures = _read(results / f"architectures/{name}.tsv")
    found = entry["kind"] == "found"
    shared = {key: entry[key] for key in ("kind", "baseline", "seed", "target")} | {"search": name if found else None}
    shared["budget_us"] = in_us(entry["budget"], table) if entry["budget"] else math.nan
    measured, level = {}, math.nan
    if entry["measured"]:
        path = results / f"measurement/{name}.tsv"
        measured = {row["name"]: row for row in _read(path).to_dict("records")}
        level = float(read_header(path)["level"])
    judged = {}
    if found:
        shared["search_s"] = _read(results / f"search/{name}/history.tsv")["seconds"].sum()
        judged = _read(results / f"evaluation/{name}.supernet.tsv").set_index("name")["supernet_top1"]
    rows = []
    for architecture in architectures.head(1 if found else len(architectures)).to_dict("records"):
        network = name if found else architecture["name"]
        taken = measured.get(architecture["name"], {})
        accuracy = {"test": [], "validation": []}
        seconds = []
        for seed in range(trainings):
            history = _read(results / f"training/{network}/seed_{seed}/history.tsv")
            for phase, values in accuracy.items():
                values.append(history[history["phase"] == phase]["top1"].iloc[-1])
            seconds.append(history["seconds"].sum())
        top1, top1_sd = mean_and_sd(accuracy["test"])
        rows.append(
            {key: architecture[key] for key in ("ops", "macs", "params")}
            | {"network": network, "predicted_us": architecture["latency_us"], "level": level}
            | {"measured_us": taken.get("measured_us"), "latency_us": taken.get("latency_us", architecture["latency_us"])}
            | {"supernet_top1": judged.get(architecture["name"]), "trainings": trainings, "top1": top1, "top1_sd": top1_sd}
            | {"validation_top1": mean_and_sd(accuracy["validation"])[0], "training_s": mean_and_sd(seconds)[0]}
            | shared
        )
    return rows


def _findings(results: Path, row: dict, summary: pd.DataFrame, space, classes: int, errors: dict) -> list[tuple]:
    """What is wrong with one search, and how well its supernet foretold."""
    search, findings = row["search"], []
    theta = _read(results / f"search/{search}/theta.tsv")
    last = theta[theta["epoch"] == theta["epoch"].max()]
    inside = _read(results / f"evaluation/{search}.supernet.tsv").drop_duplicates("ops")
    judged = inside.merge(summary.drop_duplicates("ops")[["ops", "top1"]], on="ops")
    rho = rank_correlation(judged)
    if math.isfinite(rho) and len(judged) >= LEAST_RANKED:
        text = (
            f"Accuracies inside the supernet and after training have a rank correlation of {rho:+.2f} ({len(judged)} networks)."
        )
        findings.append((search, "comparison", text))
    for text in warnings(
        space=space,
        ops=row["ops"].split(" "),
        probabilities=[group["probability"].to_numpy() for _, group in last.groupby("layer", sort=False)],
        supernet_top1=row["supernet_top1"],
        classes=classes,
        latency_us=row["latency_us"],
        budget_us=row["budget_us"],
        validation_error=errors.get(row["target"], 0.0),
        judged=judged,
    ):
        findings.append((search, "warning", text))
    return findings


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", comment="#")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of the results")
    parser.add_argument("--plan", required=True, help="JSON: the sets of networks; of each kind, target, baseline, seed, budget")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--trainings", type=int, default=1, help="trainings of each network")
    parser.add_argument("--summary", type=Path, required=True, help="the summary to write (TSV)")
    parser.add_argument("--findings", type=Path, required=True, help="the sentences to write (TSV)")
    run(parser, main)
