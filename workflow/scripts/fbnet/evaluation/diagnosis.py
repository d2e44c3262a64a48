"""What went wrong in a search, and what to change."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from fbnet.evaluation.evidence import milliseconds
from fbnet.space import SearchSpace

MOST_SKIPS = 0.75  # share of the layers that could be left out, from which on too many are
UNIFORM = 0.9  # mean entropy of theta's probabilities, of the largest possible, from which on theta has decided nothing
LEAST_RANKED = 5  # networks, fewer of which say nothing about an order
POOR_ORDER = 0.3  # rank correlation below which the supernet does not foretell who is better


def warnings(
    space: SearchSpace,
    ops: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    supernet_top1: float,
    classes: int,
    latency_us: float,
    budget_us: float,
    validation_error: float,
    judged: pd.DataFrame,
) -> list[str]:
    """A sentence for each thing that is wrong with a search, with what to change; none if all is well.

    `probabilities`: of theta after the last epoch, layer by layer; `latency_us` of the network found and `budget_us` (nan:
    none); `judged`: networks with `supernet_top1`, their accuracy inside the supernet, and `top1`, trained from scratch.
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
            f"Theta has hardly decided (its entropy is {entropy:.0%} of the largest): what was found is little more than chance. "
            f"Give more epochs, a larger theta.lr, or a lower final temperature (a larger temperature.decay)."
        )
    if supernet_top1 < 2 / classes:
        texts.append(
            f"Inside the supernet the network found is right on {supernet_top1:.1%} of the images, hardly more than chance "
            f"({1 / classes:.1%}): theta was led by weights that knew little. Give more epochs or warm-up, or choose sampling: "
            f"soft."
        )
    if latency_us > budget_us * (1 + validation_error):
        texts.append(
            f"The network found takes {milliseconds(latency_us)}, {latency_us / budget_us - 1:.1%} more than its budget "
            f"of {milliseconds(budget_us)}, and the table's mean error is {validation_error:.1%}: measure the table again on "
            f"a quiet machine, or set latency_budget lower by as much."
        )
    if len(judged) >= LEAST_RANKED:
        rho = rank_correlation(judged)
        if not rho >= POOR_ORDER:
            texts.append(
                f"The supernet does not foretell who is better: over {len(judged)} networks, the rank correlation of their "
                f"accuracies inside it and after training is {rho:+.2f}. Train the supernet longer, or trust only what was "
                f"trained from scratch."
            )
    return texts


def rank_correlation(judged: pd.DataFrame) -> float:
    """Spearman's, of the accuracies inside the supernet and after training; nan where all are equal."""
    if judged["supernet_top1"].nunique() < 2 or judged["top1"].nunique() < 2:
        return math.nan
    return float(spearmanr(judged["supernet_top1"], judged["top1"]).statistic)
