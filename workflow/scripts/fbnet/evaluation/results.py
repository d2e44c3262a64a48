"""The results of an evaluation brought together: its training runs, and a summary of its networks."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fbnet.architecture import in_us
from fbnet.errors import InputError
from fbnet.evaluation.random_search import affordable, random_search
from fbnet.evaluation.significance import mean_and_sd
from fbnet.latency import LatencyTable, read_header, read_table
from fbnet.space import SearchSpace

RUNS = ["network", "seed", "validation_top1", "top1", "training_s"]
COLUMNS = [
    *("network", "kind", "search", "method", "baseline", "seed", "rule", "target", "budget_us", "ops"),
    *("predicted_us", "measured_us", "level", "latency_us", "macs", "params"),
    *("supernet_top1", "trainings", "top1", "top1_sd", "validation_top1", "search_s", "training_s"),
    *("drawn", "pool", "top1_error"),
]
EXPECTED = ["predicted_us", "measured_us", "latency_us", "macs", "params", "validation_top1"]  # of a random search


def training_runs(results: Path, plan: Mapping[str, Mapping], trainings: int) -> pd.DataFrame:
    """A row for each training run: top-1 on the images left out and on the test set, and what it took. Raises InputError."""
    rows = []
    for network in dict.fromkeys(network for entry in plan.values() for network in entry["networks"]):
        for seed in range(trainings):
            history = read_tsv(results / f"training/{network}/seed_{seed}/history.tsv")
            last = {phase: history[history["phase"] == phase]["top1"].iloc[-1] for phase in ("validation", "test")}
            rows.append((network, seed, last["validation"], last["test"], history["seconds"].sum()))
    return pd.DataFrame(rows, columns=RUNS)


def summarise(results: Path, plan: Mapping[str, Mapping], runs: pd.DataFrame, space: SearchSpace, classes: int) -> pd.DataFrame:
    """A row for each network of a plan, by target and budget, and for each random search.

    Of a search its first network, of a baseline all.
    `plan`: a NetworkSet as a mapping by name, with `measured`, whether its target is, and `raced`, whether its architectures
    have run a race, whose time is part of `search_s`, as all of the supernet's training is, whoever else chooses from it.
    `latency_us` is measured and rescaled:
    `measured_us` / `level`, the scale factor of that measurement; where nothing was measured, it is `predicted_us`. A random
    search is the best by validation of `drawn` from the `pool` of random networks within a budget, `drawn` being how many can be
    trained in the time of a search and the training of what it finds; its numbers are expectations, `top1_sd` is between such
    searches, `top1_error` the standard error of `top1`, and `ops` are of the one that is chosen most often. Raises InputError
    for a file of the folder `results` that cannot be read.
    """
    targets = {entry["target"] for entry in plan.values()}
    tables = {target: read_table(results / f"latency/{target}.tsv", space, classes) for target in targets}
    rows = [row for name, entry in plan.items() for row in _rows(results, name, entry, tables[entry["target"]], runs)]
    summary = pd.DataFrame(rows, columns=COLUMNS).sort_values(["target", "budget_us"], kind="stable", ignore_index=True)
    searches = [
        _random_search(pool, derived, runs)
        for (baseline, _), derived in summary[summary["kind"] == "found"].groupby(["baseline", "method"], sort=False)
        if len(pool := summary[(summary["kind"] == "random") & (summary["baseline"] == baseline)])
    ]
    return pd.DataFrame(summary.to_dict("records") + searches, columns=COLUMNS)


def _rows(results: Path, name: str, entry: Mapping, table: LatencyTable, runs: pd.DataFrame) -> list[dict]:
    architectures = read_tsv(results / f"architectures/{name}.tsv")
    derived = entry["kind"] == "found"
    shared = {key: entry[key] for key in ("kind", "method", "baseline", "seed", "rule", "target")}
    shared["search"] = name if derived else None
    shared["budget_us"] = in_us(entry["budget"], table) if entry["budget"] else math.nan
    measured, scale = {}, math.nan
    if entry["measured"]:
        path = results / f"measurement/{name}.tsv"
        measured = {row["name"]: row for row in read_tsv(path).to_dict("records")}
        scale = float(read_header(path)["level"])
    one_shot = {}
    if derived:
        took = [f"search/{entry['supernet']}/history.tsv", *([f"race/{name}/race.tsv"] if entry["raced"] else [])]
        shared["search_s"] = sum(read_tsv(results / path)["seconds"].sum() for path in took)
        one_shot = read_one_shot(results, name).set_index("name")["supernet_top1"]
    rows = []
    for network, architecture in zip(entry["networks"], architectures.to_dict("records"), strict=False):
        taken = measured.get(architecture["name"], {})
        own = runs[runs["network"] == network]
        top1, top1_sd = mean_and_sd(own["top1"])
        rows.append(
            {key: architecture[key] for key in ("ops", "macs", "params")}
            | {"network": network, "predicted_us": architecture["latency_us"], "level": scale}
            | {"measured_us": taken.get("measured_us"), "latency_us": taken.get("latency_us", architecture["latency_us"])}
            | {"supernet_top1": one_shot.get(architecture["name"]), "trainings": len(own), "top1": top1, "top1_sd": top1_sd}
            | {"validation_top1": own["validation_top1"].mean(), "training_s": own["training_s"].mean()}
            | shared
        )
    return rows


def _random_search(pool: pd.DataFrame, found: pd.DataFrame, runs: pd.DataFrame) -> dict:
    """The row of the random search among networks of one budget that costs what the searches of one method cost."""
    cost_s = (found["search_s"] + found["training_s"]).mean()
    drawn = affordable(cost_s, pool["training_s"].mean())
    table = runs[runs["network"].isin(pool["network"])].pivot(index="seed", columns="network")
    validation, test = (table[column][list(pool["network"])].to_numpy() for column in ("validation_top1", "top1"))
    outcome = random_search(validation, test, min(drawn, len(pool)))
    row = pool.iloc[int(outcome.chances.argmax())].to_dict()
    row |= {column: float(outcome.chances @ pool[column].astype(float)) for column in EXPECTED}
    row |= {column: round(row[column]) for column in ("macs", "params")}
    method = found["method"].iloc[0]
    row |= {"network": f"random_search_{method}_{row['baseline']}", "kind": "random_search", "method": method}
    row |= {"search_s": drawn * pool["training_s"].mean()}
    return row | {
        **{"top1": outcome.top1, "top1_sd": outcome.top1_sd if len(pool) > 1 else math.nan, "top1_error": outcome.error},
        **{"drawn": drawn, "pool": len(pool), "training_s": math.nan},
    }


def read_one_shot(results: Path, search: str) -> pd.DataFrame:
    """The accuracies of architectures with the weights of a search's supernet: `name`, `ops`, `supernet_top1`."""
    return read_tsv(results / f"evaluation/{search}.supernet.tsv")


def read_tsv(path: Path) -> pd.DataFrame:
    """A TSV file without its comments. Raises InputError."""
    try:
        return pd.read_csv(path, sep="\t", comment="#")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
