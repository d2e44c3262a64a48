"""Devices side by side: what each derived network takes on all of them, and whether any beats what was chosen there."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fbnet.architecture import in_us
from fbnet.architecture.budget import UNITS, read_amount
from fbnet.architecture.budgets import costs
from fbnet.evaluation.evidence import difference
from fbnet.evaluation.words import milliseconds
from fbnet.latency import LatencyTable, read_header, read_table
from fbnet.space import SearchSpace

COLUMNS = [
    *("target", "network", "chosen_for", "budget_us", "predicted_us", "measured_us", "latency_us", "within"),
    *("trainings", "top1", "top1_sd", "validation_top1", "macs", "params", "int8_bytes", "ops"),
]
OF_ITS_TARGET = ["budget_us", "measured_us", "latency_us"]  # what is known of a network there alone
ROUNDING = 1e-6  # of what stands in tables


def devices(results: Path, plan: Mapping[str, Mapping], summary: pd.DataFrame, space: SearchSpace, classes: int) -> pd.DataFrame:
    """A row for each target and each derived network, whatever that was chosen for; none where there is but one target.

    `predicted_us` is by the target's table. `within` names the searches for the target all of whose budgets the network keeps
    there; where a search has no latency budget, it is to be no slower than what that found. `int8_bytes` is the size of a file.
    Raises InputError for a table that cannot be read.
    """
    found = summary[summary["kind"] == "found"]
    targets = found["target"].unique()
    if len(targets) < 2:
        return pd.DataFrame(columns=COLUMNS)
    named = {name: None for entry in plan.values() for name in entry["others"] if name not in UNITS}
    paths = {target: results / f"latency/{target}.tsv" for target in (*targets, *named)}
    tables = {target: read_table(path, space, classes) for target, path in paths.items()}
    rows = []
    for target in targets:
        header, searches = read_header(paths[target]), found[found["target"] == target].to_dict("records")
        for network in found.to_dict("records"):
            ops = network["ops"].split()
            # a target may have the name of a kind of budget
            taken = {f"budgets.{kind}": cost for kind, cost in costs(space, ops, classes, header).items()}
            taken |= {name: table.predict(ops) for name, table in tables.items()}
            limits = {search["network"]: _limits(search, plan[search["search"]]["others"], tables) for search in searches}
            within = [name for name, most in limits.items() if _keeps(taken, most)]
            row = {key: network[key] for key in COLUMNS if key in network} | {"chosen_for": network["target"], "target": target}
            if network["target"] != target:
                row |= dict.fromkeys(OF_ITS_TARGET)
            rows.append(row | {"predicted_us": taken[target], "within": " ".join(within), "int8_bytes": taken["budgets.size"]})
    return pd.DataFrame(rows, columns=COLUMNS)


def _limits(search: Mapping, others: Mapping[str, str], tables: Mapping[str, LatencyTable]) -> dict[str, float]:
    """The most of latencies and costs that a search, a row of the summary, has allowed what it found."""
    most_us = search["budget_us"] if pd.notna(search["budget_us"]) else search["predicted_us"]
    limits = {search["target"]: most_us}
    for name, amount in others.items():
        if name in UNITS:
            limits[f"budgets.{name}"] = read_amount(name, amount)
        else:
            limits[name] = in_us(amount, tables[name], f"budgets.{name}")
    return limits


def _keeps(taken: Mapping[str, float], most: Mapping[str, float]) -> bool:
    return all(taken[name] <= limit * (1 + ROUNDING) for name, limit in most.items())


def device_sentences(side: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """For each target and budget: what was chosen for it, against what was chosen for each other target and keeps that budget.

    `side` is what `devices` gives. Of several that were chosen alike, it is the best by validation accuracy.
    """
    if side.empty:
        return []
    found = summary[summary["kind"] == "found"].set_index("network", drop=False)
    texts = []
    for (target, _), alike in found.groupby(["target", "baseline"], sort=False):
        own = found.loc[alike["validation_top1"].idxmax()]
        here = side[side["target"] == target].set_index("network", drop=False)
        budget = f" within {milliseconds(own['budget_us'])}" if pd.notna(own["budget_us"]) else ""
        chosen = (
            f"On {target}{budget}, {own['network']} was chosen ({_accuracy(own)}, {_latency(here.loc[own.name])} by its table)."
        )
        others = here[here["chosen_for"] != target].groupby("chosen_for", sort=False)
        texts.append(" ".join([chosen, *(_against(own, rivals, found) for _, rivals in others)]))
    return texts


def _against(own: pd.Series, rivals: pd.DataFrame, found: pd.DataFrame) -> str:
    """How what was chosen for one target does against what was chosen for another, rows of `devices` on the first."""
    kept = rivals[[own.name in names.split() for names in rivals["within"]]]
    if kept.empty:
        rival = rivals.loc[rivals["predicted_us"].idxmin()]
        most_us = own["budget_us"] if pd.notna(own["budget_us"]) else own["predicted_us"]
        fails = "is slower here" if rival["predicted_us"] > most_us * (1 + ROUNDING) else "does not keep the other budgets here"
        return f"What was chosen for {rival['chosen_for']} {fails}: {rival['network']}, {_accuracy(rival)}, {_latency(rival)}."
    rival = kept.loc[kept["validation_top1"].idxmax()]
    who = f"{rival['network']}, chosen for {rival['chosen_for']}"
    if rival["ops"] == own["ops"]:
        return f"{who}, is the same architecture."
    between = difference(found.loc[[own.name]], found.loc[[rival.name]])
    return f"Compared with {who} ({_accuracy(rival)}, {_latency(rival)} here): {between}."


def _accuracy(network: Mapping) -> str:
    return f"{network['top1']:.1%}"


def _latency(row: Mapping) -> str:
    return milliseconds(row["predicted_us"])
