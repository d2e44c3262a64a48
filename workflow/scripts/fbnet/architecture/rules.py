"""Rules of thumb that cost nothing: within budgets, they make a sum over layers as large as they can."""

import math
from collections.abc import Callable
from typing import NamedTuple


class Rule(NamedTuple):
    """What a rule chooses in words, what a candidate counts by its MACs and parameters, and in which share a race expects the
    sum to foretell accuracy.
    """

    words: str
    value: Callable[[int, int], float]
    expected: float


RULES = {
    "macs": Rule("the most MACs", lambda macs, params: macs, expected=1.0),
    # Beside MACs it tells depth, which is good or bad by the space.
    "log_macs": Rule("the largest Σ log MACs", lambda macs, params: math.log1p(macs), expected=0.0),
}
