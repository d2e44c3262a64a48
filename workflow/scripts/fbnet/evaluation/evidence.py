"""Is what was derived any good? Networks of one latency budget compared at equal latency, in numbers and in sentences."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import linregress

from fbnet.architecture.rules import RULES
from fbnet.evaluation.significance import Difference, Uncertainty, welch
from fbnet.evaluation.words import counted, milliseconds

LEAST_FITTED = 5  # networks, fewer of which do not say what latency buys
COLUMNS = [
    *("target", "baseline", "budget_us", "method", "networks", "top1", "latency_us", "against", "other", "others", "other_top1"),
    *("other_latency_us", "difference", "error", "freedom", "half_width", "at_equal_latency", "relative", "verdict", "trainings"),
]


class Slope(NamedTuple):
    """How much accuracy more latency buys: top-1 per unit of ln latency, its variance, and the degrees of freedom of that."""

    value: float
    variance: float
    freedom: float


def what_latency_buys(networks: pd.DataFrame) -> Slope | None:
    """The line through networks that no search found, accuracy over ln latency; None for fewer than 5, or equal latencies."""
    if len(networks) < LEAST_FITTED or networks["latency_us"].nunique() < 2:
        return None
    line = linregress(np.log(networks["latency_us"].astype(float)), networks["top1"])
    return Slope(line.slope, line.stderr**2, len(networks) - 2)


def difference(derived: pd.DataFrame, others: pd.DataFrame, slope: Slope | None = None) -> Difference:
    """Between the mean test accuracies of two groups of networks, rows of the summary: Welch's t interval.

    The variance of a group's mean is that between its n networks (n − 1 degrees of freedom); of a single network it is that
    between its r training runs (r − 1), of a random search its own. The degrees of freedom of all are put together by Welch and
    Satterthwaite. A single network of a single run counts as one sample from the spread s² of the other group: the variance is
    s² (1 + 1/n), and as it rests on s² alone, it has the n − 1 degrees of freedom of that. Without another group the error is
    infinite. With a slope, the difference is that at equal latency (analysis of covariance): what the difference of the mean
    ln latencies buys is taken off, and its variance added.
    """
    value = derived["top1"].mean() - others["top1"].mean()
    further = []
    if slope:
        gap = float(np.log(derived["latency_us"].astype(float)).mean() - np.log(others["latency_us"].astype(float)).mean())
        value -= slope.value * gap
        further = [Uncertainty(slope.variance * gap**2, slope.freedom)] if gap else []
    means = [mean for group in (derived, others) if (mean := _uncertainty(group))]
    if len(means) == 2:
        return welch(value, *means, *further)
    for group in (derived, others):
        if (n := len(group)) > 1:
            variance = group["top1"].var(ddof=1) * (1 + 1 / n) + sum(mean.variance for mean in further)
            return Difference(value, math.sqrt(variance), n - 1)
    return Difference(value, math.inf, math.nan)


def _uncertainty(group: pd.DataFrame) -> Uncertainty | None:
    """How well a group's mean is known; None where a single network was trained once."""
    if (n := len(group)) > 1:
        return Uncertainty(group["top1"].var(ddof=1) / n, n - 1)
    only = group.iloc[0]
    if only["kind"] == "random_search":
        return Uncertainty(only["top1_error"] ** 2, only["pool"] - 1) if only["pool"] > 1 else None
    sd, runs = only["top1_sd"], only["trainings"]
    return Uncertainty(sd**2 / runs, runs - 1) if runs > 1 and math.isfinite(sd) else None


def comparisons(summary: pd.DataFrame) -> pd.DataFrame:
    """A row for each baseline that the architectures of a method and budget are compared with, at equal latency where possible.

    `against` is random, random_search, or a rule; `relative` is the improvement over the other accuracy, relative to it (Yang
    et al. 2020, arXiv 1912.12522); `verdict` is better, worse, equal (a difference that is not significant), or unknown.
    """
    rows = []
    blind = summary[~summary["kind"].isin(["found", "random_search"])].drop_duplicates(["ops", "target"])
    for (baseline, method), derived in summary[summary["kind"] == "found"].groupby(["baseline", "method"], sort=False):
        target, budget_us = derived["target"].iloc[0], derived["budget_us"].iloc[0]
        slope = what_latency_buys(blind[blind["target"] == target])
        own = summary["method"].isna() | (summary["method"] == method)
        for against, others in _baselines(summary[(summary["baseline"] == baseline) & (summary["kind"] != "found") & own]):
            found = difference(derived, others, slope)
            top1, other_top1 = derived["top1"].mean(), others["top1"].mean()
            rows.append(
                {"target": target, "baseline": baseline, "budget_us": budget_us, "method": method}
                | {"networks": " ".join(derived["network"])}
                | {"top1": top1, "latency_us": _mean_latency(derived), "against": against}
                | {"other": others["network"].iloc[0] if len(others) == 1 else f"{against}_{baseline}", "others": len(others)}
                | {"other_top1": other_top1, "other_latency_us": _mean_latency(others)}
                | {"difference": found.value, "error": found.error, "freedom": found.freedom, "half_width": found.half_width}
                | {"at_equal_latency": slope is not None}
                | {"relative": (top1 - other_top1) / other_top1 if other_top1 else math.nan, "verdict": found.verdict}
                | {"trainings": int(min(derived["trainings"].min(), others["trainings"].min()))}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _baselines(others: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for kind in ("random", "random_search"):
        if len(group := others[others["kind"] == kind]):
            yield kind, group
    for rule, group in others[others["kind"] == "rule"].groupby("rule", sort=False):
        yield rule, group


def _mean_latency(group: pd.DataFrame) -> float:
    return float(np.exp(np.log(group["latency_us"].astype(float)).mean()))


def sentences(summary: pd.DataFrame, compared: pd.DataFrame, mape: Mapping[str, float]) -> list[tuple[str, str]]:
    """A sentence for every claim that summary and comparisons allow; `mape`: that of each target's table in its validation.

    Each is a `comparison`, or a `warning` where no search is shown to beat what costs nothing, or random search at its cost.
    """
    claims = []
    derived, published = (summary[summary["kind"] == kind] for kind in ("found", "published"))
    for (baseline, method), rows in compared.groupby(["baseline", "method"], sort=False):
        group = derived[(derived["baseline"] == baseline) & (derived["method"] == method)]
        measured = bool(group["measured_us"].notna().all())
        claims += [("comparison", _against(row, group, summary, measured)) for row in rows.to_dict("records")]
        unbeaten = [row for row in rows.to_dict("records") if row["against"] != "random" and row["verdict"] != "better"]
        if unbeaten:
            claims.append(("warning", _unbeaten(unbeaten, group)))
    for target, group in derived.groupby("target", sort=False):
        others = published[published["target"] == target]
        if len(others):
            claims.append(("comparison", _against_published(group, others)))
    return claims + [("comparison", text) for text in _budgets(derived, mape)]


def _within(derived: pd.DataFrame) -> str:
    budget_us = derived["budget_us"].iloc[0]
    within = f"Within {milliseconds(budget_us)}" if math.isfinite(budget_us) else "Within the latency of the derived architecture"
    return f"{within} on {derived['target'].iloc[0]}"


def _against(row: Mapping, derived: pd.DataFrame, summary: pd.DataFrame, measured: bool) -> str:
    several = len(derived) > 1
    who = f"the {len(derived)} derived architectures ({', '.join(derived['network'])})" if several else derived["network"].iloc[0]
    reach, mean = ("reach", " on average") if several else ("reaches", "")
    found = Difference(row["difference"], row["error"], row["freedom"])
    latency = "measured latency" if measured else "predicted latency"
    at = f"at equal {latency} " if row["at_equal_latency"] else ""
    ratio = row["latency_us"] / row["other_latency_us"]
    relative = f", relative to theirs {row['relative']:+.1%}" if row["against"] == "random" else ""
    return (
        f"{_within(derived)}, {who} {reach} a test accuracy of {row['top1']:.1%}{mean}, {_who_else(row, summary)} "
        f"{row['other_top1']:.1%}{relative}: {at}{found}; {ratio:.2f} × the {latency}, "
        f"{counted(row['trainings'], 'training run')} each."
    )


def _who_else(row: Mapping, summary: pd.DataFrame) -> str:
    if row["against"] == "random":
        return counted(row["others"], "random architecture")
    if row["against"] == "random_search":
        entry = summary[summary["network"] == row["other"]].iloc[0]
        drawn, pool = int(entry["drawn"]), int(entry["pool"])
        if drawn > pool:
            more = f"the search's cost would allow {drawn}: set evaluation.random to it"
            return f"random search (the best of {pool} by validation; {more})"
        return f"random search at the same cost ({f'the best of {drawn} by validation' if drawn > 1 else 'a single one'})"
    return f"the architecture with {RULES[row['against']].words} (a rule that costs nothing)"


def _unbeaten(rows: list[Mapping], derived: pd.DataFrame) -> str:
    names = [
        "random search at its own cost" if row["against"] == "random_search" else f"the rule “{RULES[row['against']].words}”"
        for row in rows
    ]
    several = len(derived) > 1
    return (
        f"{_within(derived)}, {'the searches are' if several else 'the search is'} not shown to beat {' or '.join(names)}. "
        f"Train the supernet longer; where a difference is there but not significant, raise evaluation.trainings or search with "
        f"more seeds. Until then, nothing shows that what is derived is worth a search."
    )


def _against_published(derived: pd.DataFrame, published: pd.DataFrame) -> str:
    """The derived architecture of the best validation accuracy, and the published one whose latency is nearest."""
    best = derived.loc[[derived["validation_top1"].idxmax()]]
    nearest = published.loc[[(published["latency_us"] / best["latency_us"].iloc[0]).map(math.log).abs().idxmin()]]
    ratio = best["latency_us"].iloc[0] / nearest["latency_us"].iloc[0]
    runs = int(min(best["trainings"].iloc[0], nearest["trainings"].iloc[0]))
    return (
        f"{best['network'].iloc[0]}, which has the best validation accuracy, compared with {nearest['network'].iloc[0]}, the "
        f"published network of the nearest latency: {difference(best, nearest)}, at {ratio:.2f} × its latency; "
        f"{counted(runs, 'training run')} each."
    )


def _budgets(derived: pd.DataFrame, mape: Mapping[str, float]) -> list[str]:
    texts = []
    bound = derived[derived["budget_us"].notna()]
    for target, group in bound.groupby("target", sort=False):
        over = group["latency_us"] / group["budget_us"] - 1
        allowed = mape.get(target, 0.0)
        tolerance = f", within the table's mean absolute percentage error (MAPE) of {allowed:.1%}" if target in mape else ""
        kept = int((over <= allowed).sum())
        worst, side = group.loc[over.idxmax(), "network"], "above" if over.max() > 0 else "below"
        how = "measured and rescaled" if group["measured_us"].notna().all() else "predicted"
        texts.append(
            f"{kept} of {len(group)} derived architectures keep their budget on {target} in {how} latency{tolerance}; "
            f"the slowest, {worst}, is {abs(over.max()):.1%} {side} its budget."
        )
    return texts
