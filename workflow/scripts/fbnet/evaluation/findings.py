"""What follows from an evaluation, in sentences: comparisons, and warnings with what to change."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fbnet.evaluation.derived import read_theta
from fbnet.evaluation.diagnosis import diagnosis
from fbnet.evaluation.evidence import sentences
from fbnet.evaluation.words import milliseconds
from fbnet.latency import read_header
from fbnet.space import SearchSpace

GOOD_CEILING = 0.5  # Kendall's τ below which training runs order networks too badly for anything to be held against them


def findings(
    results: Path,
    summary: pd.DataFrame,
    compared: pd.DataFrame,
    ranked: pd.DataFrame,
    races: Mapping[str, pd.DataFrame],
    supernets: Mapping[str, str],
    space: SearchSpace,
    classes: int,
) -> list[tuple[str, str, str]]:
    """What follows from summary, comparisons, ranking, races and supernets of searches (by name): (about, kind, sentence).

    It is about a search or `all`, a `comparison` or a `warning`. Raises InputError for a file that cannot be read.
    """
    validations = {target: results / f"latency/{target}.validation.tsv" for target in summary["target"].unique()}
    mape = {target: float(read_header(path)["mean_error"]) for target, path in validations.items() if path.is_file()}
    found = [("all", kind, text) for kind, text in sentences(summary, compared, mape)]
    found += [(search, "comparison", race_sentence(standing)) for search, standing in races.items()]
    found += order_sentences(ranked)
    for row in summary[summary["kind"] == "found"].to_dict("records"):
        theta = read_theta(results / f"search/{supernets[row['search']]}/theta.tsv")
        texts = diagnosis(space, row["ops"].split(" "), theta, row["supernet_top1"], classes)
        texts += over_budget(row, mape.get(row["target"], 0.0))
        found += [(row["search"], "warning", text) for text in texts]
    return found


def over_budget(row: Mapping, mape: float) -> list[str]:
    """A sentence if a derived architecture, a row of the summary, takes more than its budget and the table's MAPE allow."""
    latency_us, budget_us = row["latency_us"], row["budget_us"]
    if not latency_us > budget_us * (1 + mape):
        return []
    measured = "measured and rescaled" if pd.notna(row["measured_us"]) else "predicted"
    return [
        f"The {measured} latency of the derived architecture is {milliseconds(latency_us)}, {latency_us / budget_us - 1:.1%} "
        f"more than its budget of {milliseconds(budget_us)}, while the table's MAPE is {mape:.1%}: measure the table again on a "
        f"quiet machine, or set latency_budget lower."
    ]


def race_sentence(standing: pd.DataFrame) -> str:
    """Who has won a race, and how far those came that theta or a rule chose alone; rows as in race.tsv."""
    last = standing.sort_values(["round", "validation_top1"], ascending=False, kind="stable").drop_duplicates("name")
    reached = [
        f"by {row['chosen_by']} with a validation accuracy of {row['validation_top1']:.1%} after {row['epochs']} epochs"
        for row in last.to_dict("records")
    ]
    alone = [text for text, by in zip(reached[1:], last["chosen_by"][1:], strict=True) if " " not in by]
    others = f" Chosen {'; '.join(alone)}." if alone else ""
    return f"Of {len(last)} architectures in the race the winner, {last['name'].iloc[0]}, was chosen {reached[0]}.{others}"


def order_sentences(ranked: pd.DataFrame) -> list[tuple[str, str, str]]:
    """How well each supernet orders architectures, beside what MACs tell and what training runs can tell at all."""
    found = []
    for target, group in ranked.groupby("target", sort=False):
        by = group.drop_duplicates("by").set_index("by")
        macs, top = by.loc["macs"], by["tau"].get("training")
        limit = "" if top is None else f"; {top:+.2f} is the ceiling, one half of the training runs against the other"
        for row in group[group["by"] == "supernet"].to_dict("records"):
            text = (
                f"Kendall's τ of one-shot accuracy with accuracy after training is {row['tau']:+.2f} (n = {row['networks']} "
                f"random architectures, by chance within ±{row['tau_by_chance']:.2f}), that of MACs {macs['tau']:+.2f}{limit}. "
                f"The one that the supernet puts first is {100 * row['regret']:.1f} percentage points behind the best of them, "
                f"the one that MACs put first {100 * macs['regret']:.1f}."
            )
            found.append((row["search"], "comparison", text))
            if not row["tau"] > max(macs["tau"], row["tau_by_chance"]):
                text = (
                    f"The supernet orders architectures no better than {_instead(row, macs)} (Kendall's τ {row['tau']:+.2f}, n = "
                    f"{row['networks']}): theta is led by weights that do not know which is better. Train the supernet longer, "
                    f"or trust only what was trained from scratch."
                )
                found.append((row["search"], "warning", text))
        if top is not None and top < GOOD_CEILING:
            text = (
                f"Training runs hardly agree on the order of architectures on {target} (Kendall's τ {top:+.2f} between their "
                f"halves): nothing can be held against such an order. Train longer (train.epochs), or more often "
                f"(evaluation.trainings)."
            )
            found.append(("all", "warning", text))
    return found


def _instead(row: Mapping, macs: Mapping) -> str:
    return "chance" if not row["tau"] > row["tau_by_chance"] else f"their MACs ({macs['tau']:+.2f})"
