"""Is what was found any good? Networks of equal latency budget compared, in numbers and in sentences that follow them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

CLEAR = 2.0  # standard errors from which on a difference is called one


@dataclass(frozen=True)
class Difference:
    """By how much one group's mean exceeds another's, with its standard error."""

    value: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether it is more than CLEAR standard errors from 0."""
        return abs(self.value) > CLEAR * self.error

    def __str__(self) -> str:
        points, error = 100 * self.value, 100 * CLEAR * self.error
        if math.isinf(error):
            return f"a difference of {points:+.1f} points, of which a single training each cannot tell whether it is chance"
        if self.clear:
            return f"{abs(points):.1f} points {'better' if points > 0 else 'worse'} (± {error:.1f} at two standard errors)"
        return f"a difference of {points:+.1f} points, within the spread (± {error:.1f} at two standard errors)"


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; nan for the latter where there is but one value."""
    values = np.asarray(values, dtype=float)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def difference(found: pd.DataFrame, others: pd.DataFrame) -> Difference:
    """Between the mean test accuracies of two groups of networks, rows of the summary.

    The variance of a group's mean is that between its networks; of a single network it is that between its trainings. Where
    that is not known either, the network counts as one draw from the spread of the other group; without any, it is infinite.
    """
    means = [group["top1"].mean() for group in (found, others)]
    between = [group["top1"].var(ddof=1) / len(group) if len(group) > 1 else math.nan for group in (found, others)]
    trainings = [(group["top1_sd"] ** 2 / group["trainings"]).mean() for group in (found, others)]
    spread = [group["top1"].var(ddof=1) if len(group) > 1 else math.nan for group in (others, found)]
    variances = [
        next((value for value in options if math.isfinite(value)), math.inf)
        for options in zip(between, trainings, spread, strict=True)
    ]
    return Difference(means[0] - means[1], math.sqrt(sum(variances)))


def sentences(summary: pd.DataFrame, validation_error: dict[str, float]) -> list[tuple[str, str]]:
    """(about, sentence) for every claim that the summary allows; `validation_error`: mean error of each target's table."""
    claims = []
    found, random, published = (summary[summary["kind"] == kind] for kind in ("found", "random", "published"))
    for baseline, group in found.groupby("baseline", sort=False):
        others = random[random["baseline"] == baseline]
        if len(others):
            claims.append(("all", _against_random(group, others)))
    for target, group in found.groupby("target", sort=False):
        others = published[published["target"] == target]
        if len(others):
            claims.append(("all", _against_published(group, others)))
    claims += [("all", text) for text in _budgets(found, validation_error)]
    return claims


def _against_random(found: pd.DataFrame, others: pd.DataFrame) -> str:
    budget_us = found["budget_us"].iloc[0]
    within = f"Within {milliseconds(budget_us)}" if math.isfinite(budget_us) else "Within the latency of the network found"
    same_budget = len(found) > 1
    who = f"the {len(found)} networks found ({', '.join(found['network'])})" if same_budget else found["network"].iloc[0]
    reach = "reach in the mean" if same_budget else "reaches"
    trainings = int(min(found["trainings"].min(), others["trainings"].min()))
    return (
        f"{within} on {found['target'].iloc[0]}, {who} {reach} {found['top1'].mean():.1%} on the test set, {len(others)} random "
        f"architectures {others['top1'].mean():.1%}: {difference(found, others)}; {_trainings(trainings)} each."
    )


def _against_published(found: pd.DataFrame, published: pd.DataFrame) -> str:
    """The network found that validates best, and the published one whose latency is nearest."""
    best = found.loc[[found["validation_top1"].idxmax()]]
    nearest = published.loc[[(published["latency_us"] / best["latency_us"].iloc[0]).map(math.log).abs().idxmin()]]
    ratio = best["latency_us"].iloc[0] / nearest["latency_us"].iloc[0]
    return (
        f"{best['network'].iloc[0]}, which validates best, is held against {nearest['network'].iloc[0]}, the published network "
        f"of the nearest latency: {difference(best, nearest)}, at {ratio:.2f} × its latency; "
        f"{_trainings(int(min(best['trainings'].iloc[0], nearest['trainings'].iloc[0])))} each."
    )


def _budgets(found: pd.DataFrame, validation_error: dict[str, float]) -> list[str]:
    texts = []
    bound = found[found["budget_us"].notna()]
    for target, group in bound.groupby("target", sort=False):
        over = group["latency_us"] / group["budget_us"] - 1
        allowed = validation_error.get(target, 0.0)
        kept = int((over <= allowed).sum())
        worst = group.loc[over.idxmax(), "network"]
        how = "by measurement" if group["measured_us"].notna().all() else "by the table's prediction"
        texts.append(
            f"{kept} of {len(group)} networks found keep their latency budget on {target} {how}, within the table's mean error "
            f"of {allowed:.1%}; {worst} is the furthest, at {over.max():+.1%} of it."
        )
    return texts


def milliseconds(us: float) -> str:
    """A latency as sentences have it."""
    return f"{us / 1000:.3g} ms" if us < 999_500 else f"{us / 1000:.0f} ms"


def _trainings(count: int) -> str:
    return "one training" if count == 1 else f"{count} trainings"
