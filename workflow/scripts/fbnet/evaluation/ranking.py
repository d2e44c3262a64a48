"""The order of architectures: how well what is known before their training tells which are better after it."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

LEAST_RANKED = 5  # architectures, fewer of which say nothing about an order
COLUMNS = ["target", "search", "by", "networks", "tau", "tau_by_chance", "regret"]


def ranking(summary: pd.DataFrame, runs: pd.DataFrame, one_shot: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """For each target, how random architectures are ordered by each search's supernet, and by what it is held against.

    `runs` has a row for each training run: `network`, `seed`, `top1`; `one_shot` by search, `name` and `supernet_top1`. A row
    says by what they are ordered: `supernet` (one-shot accuracy), `macs`, `params`, `latency` (predicted), `chance`, or
    `training`, which is the ceiling: half of each one's training runs against the other half. `tau` is Kendall's τ-b with the
    mean test accuracy of the training runs, 0 where either is the same of all; `tau_by_chance` what it stays below with 95 %
    of all random orders (normal approximation); `regret` by how much accuracy what is put first stays behind the best.
    """
    rows = []
    for target, group in summary[summary["kind"].isin(["random", "ranked"])].groupby("target", sort=False):
        group = group.drop_duplicates("ops").set_index("network")
        if len(group) < LEAST_RANKED:
            continue
        top1 = group["top1"]
        chance = _by_chance(len(group))
        shared = {"target": target, "networks": len(group), "tau_by_chance": chance}
        searches = summary[(summary["kind"] == "found") & (summary["target"] == target)]["search"]
        for search in searches:
            inside = one_shot[search].drop_duplicates("name").set_index("name")["supernet_top1"].reindex(group.index)
            rows.append(shared | {"search": search, "by": "supernet"} | _order(inside, top1))
        for by, column in (("macs", "macs"), ("params", "params"), ("latency", "predicted_us")):
            rows.append(shared | {"by": by} | _order(group[column], top1))
        rows.append(shared | {"by": "chance", "tau": 0.0, "regret": top1.max() - top1.mean()})
        table = runs.pivot_table(index="network", columns="seed", values="top1").reindex(group.index)
        if len(table.columns) > 1:
            rows.append(shared | {"by": "training"} | ceiling(table.to_numpy()))
    return pd.DataFrame(rows, columns=COLUMNS)


def ceiling(top1: np.ndarray) -> dict[str, float]:
    """How well training runs order networks, by the others: the means over all ways to part the runs into two halves.

    `top1`: test accuracies [networks, runs], 2 runs or more; of an odd number of runs one half has one more.
    """
    runs = range(top1.shape[1])
    found = []
    for one in itertools.combinations(runs, len(runs) // 2):
        other = [run for run in runs if run not in one]
        found.append(_order(top1[:, list(one)].mean(1), top1[:, other].mean(1)))
    return {key: float(np.mean([entry[key] for entry in found])) for key in ("tau", "regret")}


def _order(by, top1) -> dict[str, float]:
    by, top1 = np.asarray(by, dtype=float), np.asarray(top1, dtype=float)
    equal = len(set(by)) < 2 or len(set(top1)) < 2
    first = by == by.max()  # of several that are first alike, the mean
    return {"tau": 0.0 if equal else float(kendalltau(by, top1).statistic), "regret": float(top1.max() - top1[first].mean())}


def _by_chance(count: int) -> float:
    return 1.96 * math.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)))
