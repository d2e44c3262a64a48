"""The results of an evaluation brought together: a summary of its networks, and findings about them in sentences."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fbnet.architecture import in_us
from fbnet.errors import InputError
from fbnet.evaluation.diagnosis import LEAST_RANKED, rank_correlation, warnings
from fbnet.evaluation.evidence import sentences
from fbnet.evaluation.significance import mean_and_sd
from fbnet.latency import LatencyTable, read_header, read_table
from fbnet.space import SearchSpace

COLUMNS = [
    *("network", "kind", "search", "baseline", "seed", "target", "budget_us", "ops"),
    *("predicted_us", "measured_us", "level", "latency_us", "macs", "params"),
    *("supernet_top1", "trainings", "top1", "top1_sd", "validation_top1", "search_s", "training_s"),
]


def summarise(results: Path, plan: Mapping[str, Mapping], space: SearchSpace, classes: int, trainings: int) -> pd.DataFrame:
    """A row for each network of a plan that was trained so many times: the first of a search, and all of a baseline.

    `plan`: a NetworkSet as a mapping by name, with `measured`, whether its target is. `latency_us` is measured and rescaled:
    `measured_us` / `level`, the scale factor of that measurement; where nothing was measured, it is `predicted_us`. Raises
    InputError for a file of the folder `results` that cannot be read.
    """
    targets = {entry["target"] for entry in plan.values()}
    tables = {target: read_table(results / f"latency/{target}.tsv", space, classes) for target in targets}
    rows = [row for name, entry in plan.items() for row in _rows(results, name, entry, tables[entry["target"]], trainings)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(results: Path, name: str, entry: Mapping, table: LatencyTable, trainings: int) -> list[dict]:
    architectures = _read(results / f"architectures/{name}.tsv")
    derived = entry["kind"] == "found"
    shared = {key: entry[key] for key in ("kind", "baseline", "seed", "target")} | {"search": name if derived else None}
    shared["budget_us"] = in_us(entry["budget"], table) if entry["budget"] else math.nan
    measured, scale = {}, math.nan
    if entry["measured"]:
        path = results / f"measurement/{name}.tsv"
        measured = {row["name"]: row for row in _read(path).to_dict("records")}
        scale = float(read_header(path)["level"])
    one_shot = {}
    if derived:
        shared["search_s"] = _read(results / f"search/{name}/history.tsv")["seconds"].sum()
        one_shot = _read(results / f"evaluation/{name}.supernet.tsv").set_index("name")["supernet_top1"]
    rows = []
    for architecture in architectures.head(1 if derived else len(architectures)).to_dict("records"):
        network = name if derived else architecture["name"]
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
            | {"network": network, "predicted_us": architecture["latency_us"], "level": scale}
            | {"measured_us": taken.get("measured_us"), "latency_us": taken.get("latency_us", architecture["latency_us"])}
            | {"supernet_top1": one_shot.get(architecture["name"]), "trainings": trainings, "top1": top1, "top1_sd": top1_sd}
            | {"validation_top1": mean_and_sd(accuracy["validation"])[0], "training_s": mean_and_sd(seconds)[0]}
            | shared
        )
    return rows


def findings(results: Path, summary: pd.DataFrame, space: SearchSpace, classes: int) -> list[tuple[str, str, str]]:
    """What follows from a summary: (about, kind, sentence), about a search or `all`, a `comparison` or a `warning`."""
    validations = {target: results / f"latency/{target}.validation.tsv" for target in summary["target"].unique()}
    mape = {target: float(read_header(path)["mean_error"]) for target, path in validations.items() if path.is_file()}
    found = [(about, "comparison", text) for about, text in sentences(summary, mape)]
    for row in summary[summary["kind"] == "found"].to_dict("records"):
        search = row["search"]
        theta = _read(results / f"search/{search}/theta.tsv")
        last = theta[theta["epoch"] == theta["epoch"].max()]
        one_shot = _read(results / f"evaluation/{search}.supernet.tsv").drop_duplicates("ops")
        ranked = one_shot.merge(summary.drop_duplicates("ops")[["ops", "top1"]], on="ops")
        rho = rank_correlation(ranked)
        if math.isfinite(rho) and len(ranked) >= LEAST_RANKED:
            text = "Spearman's rank correlation of one-shot accuracy with accuracy after training is"
            found.append((search, "comparison", f"{text} {rho:+.2f} (n = {len(ranked)} architectures)."))
        texts = warnings(
            space=space,
            ops=row["ops"].split(" "),
            probabilities=[group["probability"].to_numpy() for _, group in last.groupby("layer", sort=False)],
            supernet_top1=row["supernet_top1"],
            classes=classes,
            latency_us=row["latency_us"],
            measured=pd.notna(row["measured_us"]),
            budget_us=row["budget_us"],
            mape=mape.get(row["target"], 0.0),
            ranked=ranked,
        )
        found += [(search, "warning", text) for text in texts]
    return found


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", comment="#")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
