"""What went wrong in a search, and what to change; needs no torch, no NumPy."""

import math
from collections.abc import Sequence

from fbnet.space import SearchSpace

MOST_SKIPS = 0.75  # share of the layers that could be left out, from which on too many are
UNIFORM = 0.9  # mean entropy of theta's probabilities, of the largest possible, from which on the search has decided nothing


def diagnosis(
    space: SearchSpace, ops: Sequence[str], probabilities: Sequence[Sequence[float]], one_shot: float | None, classes: int
) -> list[str]:
    """A sentence for each thing that is wrong with a search, with what to change; none if all is well.

    `ops`: the derived architecture; `probabilities`: of theta after the last epoch, layer by layer; `one_shot`: the accuracy of
    the derived architecture with inherited weights, None if it is not known.
    """
    texts = []
    optional = [layer for layer in space.layers if any(cell.is_identity for cell in layer)]
    skipped = sum(cell.is_identity for cell in space.path(ops))
    if optional and skipped > MOST_SKIPS * len(optional):
        texts.append(
            f"{skipped} of the {len(optional)} layers that can be left out are: latency counts too much. Allow a larger "
            f"latency_budget, or with method fbnet lower loss.beta (form paper)."
        )
    entropies = [sum(-p * math.log(p) for p in row if p > 0) / math.log(len(row)) for row in probabilities if len(row) > 1]
    if entropies and (entropy := sum(entropies) / len(entropies)) > UNIFORM:
        texts.append(
            f"The search has hardly decided (the entropy of theta's probabilities is {entropy:.0%} of the largest): the derived "
            f"architecture is little more than chance. Give more epochs; theta a larger theta.lr, or a lower final "
            f"temperature (a larger temperature.decay); method one_shot more architectures to rate (search.rated)."
        )
    if one_shot is not None and one_shot < 2 / classes:
        texts.append(
            f"The one-shot accuracy of the derived architecture is {one_shot:.1%}, hardly more than chance "
            f"({1 / classes:.1%}): the supernet that chose it had learned little. Give more epochs, or let operators share "
            f"their weights (search.shared_weights)."
        )
    return texts
