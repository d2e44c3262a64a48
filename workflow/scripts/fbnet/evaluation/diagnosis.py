"""What went wrong in a search, and what to change."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from fbnet.evaluation.words import milliseconds
from fbnet.space import SearchSpace

MOST_SKIPS = 0.75  # share of the layers that could be left out, from which on too many are
UNIFORM = 0.9  # mean entropy of theta's probabilities, of the largest possible, from which on the search has decided nothing
LEAST_RANKED = 5  # architectures, fewer of which say nothing about a ranking
POOR_RANKING = 0.3  # rank correlation below which one-shot accuracies do not rank architectures


def warnings(
    space: SearchSpace,
    ops: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    supernet_top1: float,
    classes: int,
    latency_us: float,
    measured: bool,
    budget_us: float,
    mape: float,
    ranked: pd.DataFrame,
) -> list[str]:
    """A sentence for each thing that is wrong with a search, with what to change; none if all is well.

    `ops`: the derived architecture; `probabilities`: of theta after the last epoch, layer by layer; `supernet_top1`: one-shot
    accuracy; `latency_us`: `measured` and rescaled, or predicted; `budget_us`: nan where there is none; `mape` of the latency
    table; `ranked`: architectures with `supernet_top1` and `top1`, their accuracies with inherited weights and after training.
    """
    texts = []
    optional = [cell for layer in space.layers for cell in layer if cell.is_identity]
    skipped = sum(cell.is_identity for cell in space.path(ops))
    if optional and skipped > MOST_SKIPS * len(optional):
        texts.append(
            f"{skipped} of the {len(optional)} layers that can be left out are: latency counts too much. Lower loss.beta (form "
            f"paper), or aim at a larger latency_budget (form target)."
        )
    decided = [np.asarray(row) for row in probabilities if len(row) > 1]
    entropy = np.mean([-(row * np.log(np.maximum(row, 1e-12))).sum() / math.log(len(row)) for row in decided] or [0.0])
    if entropy > UNIFORM:
        texts.append(
            f"The search has hardly decided (the entropy of theta's probabilities is {entropy:.0%} of the largest): the derived "
            f"architecture is little more than chance. Give more epochs, a larger theta.lr, or a lower final temperature (a "
            f"larger temperature.decay)."
        )
    if supernet_top1 < 2 / classes:
        texts.append(
            f"The one-shot accuracy of the derived architecture is {supernet_top1:.1%}, hardly more than chance "
            f"({1 / classes:.1%}): theta learned from a supernet that had learned little. Give more epochs or warm-up, or choose "
            f"sampling: soft."
        )
    if latency_us > budget_us * (1 + mape):
        texts.append(
            f"The {'measured and rescaled' if measured else 'predicted'} latency of the derived architecture is "
            f"{milliseconds(latency_us)}, {latency_us / budget_us - 1:.1%} more than its budget of {milliseconds(budget_us)}, "
            f"while the table's MAPE is {mape:.1%}: measure the table again on a quiet machine, or set latency_budget lower."
        )
    if len(ranked) >= LEAST_RANKED:
        rho = rank_correlation(ranked)
        if not rho >= POOR_RANKING:
            texts.append(
                f"The supernet ranks architectures poorly: Spearman's rank correlation of one-shot accuracy with accuracy after "
                f"training is {rho:+.2f} (n = {len(ranked)} architectures). Train the supernet longer, or trust only what was "
                f"trained from scratch."
            )
    return texts


def rank_correlation(ranked: pd.DataFrame) -> float:
    """Spearman's, of the one-shot accuracies and those after training; nan where all are equal."""
    if ranked["supernet_top1"].nunique() < 2 or ranked["top1"].nunique() < 2:
        return math.nan
    return float(spearmanr(ranked["supernet_top1"], ranked["top1"]).statistic)
