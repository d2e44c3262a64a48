"""Is what was derived any good? Networks of equal latency budget compared, in numbers and in sentences that follow them."""

import math

import pandas as pd

from fbnet.evaluation.significance import Difference, Uncertainty, welch
from fbnet.evaluation.words import counted, milliseconds


def difference(derived: pd.DataFrame, others: pd.DataFrame) -> Difference:
    """Between the mean test accuracies of two groups of networks, rows of the summary: Welch's t interval.

    The variance of a group's mean is that between its n networks (n − 1 degrees of freedom); of a single network it is that
    between its r training runs (r − 1). The degrees of freedom of both are put together by Welch and Satterthwaite. A single
    network of a single run counts as one sample from the spread s² of the other group: the variance is s² (1 + 1/n), and as it
    rests on s² alone, it has the n − 1 degrees of freedom of that. Without another group the error is infinite.
    """
    value = derived["top1"].mean() - others["top1"].mean()
    means = [mean for group in (derived, others) if (mean := _uncertainty(group))]
    if len(means) == 2:
        return welch(value, *means)
    for group in (derived, others):
        if (n := len(group)) > 1:
            return Difference(value, math.sqrt(group["top1"].var(ddof=1) * (1 + 1 / n)), n - 1)
    return Difference(value, math.inf, math.nan)


def _uncertainty(group: pd.DataFrame) -> Uncertainty | None:
    """How well a group's mean is known; None where a single network was trained once."""
    if (n := len(group)) > 1:
        return Uncertainty(group["top1"].var(ddof=1) / n, n - 1)
    sd, runs = group["top1_sd"].iloc[0], group["trainings"].iloc[0]
    return Uncertainty(sd**2 / runs, runs - 1) if runs > 1 and math.isfinite(sd) else None


def sentences(summary: pd.DataFrame, mape: dict[str, float]) -> list[tuple[str, str]]:
    """(about, sentence) for every claim that the summary allows; `mape`: that of each target's table in its validation."""
    claims = []
    derived, random, published = (summary[summary["kind"] == kind] for kind in ("found", "random", "published"))
    for baseline, group in derived.groupby("baseline", sort=False):
        others = random[random["baseline"] == baseline]
        if len(others):
            claims.append(("all", _against_random(group, others)))
    for target, group in derived.groupby("target", sort=False):
        others = published[published["target"] == target]
        if len(others):
            claims.append(("all", _against_published(group, others)))
    claims += [("all", text) for text in _budgets(derived, mape)]
    return claims


def _against_random(derived: pd.DataFrame, others: pd.DataFrame) -> str:
    budget_us = derived["budget_us"].iloc[0]
    within = f"Within {milliseconds(budget_us)}" if math.isfinite(budget_us) else "Within the latency of the derived architecture"
    several = len(derived) > 1
    who = f"the {len(derived)} derived architectures ({', '.join(derived['network'])})" if several else derived["network"].iloc[0]
    reach = "reach" if several else "reaches"
    mean = " on average" if several else ""
    runs = int(min(derived["trainings"].min(), others["trainings"].min()))
    return (
        f"{within} on {derived['target'].iloc[0]}, {who} {reach} a test accuracy of {derived['top1'].mean():.1%}{mean}, "
        f"{counted(len(others), 'random architecture')} {others['top1'].mean():.1%}: {difference(derived, others)}; "
        f"{counted(runs, 'training run')} each."
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


def _budgets(derived: pd.DataFrame, mape: dict[str, float]) -> list[str]:
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
