"""Differences of mean accuracies with their 95 % confidence intervals, by Student's t."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95


class Uncertainty(NamedTuple):
    """The variance of an estimated mean, and the degrees of freedom that this variance is known with."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Difference:
    """By how much one mean exceeds another, its standard error (inf: not known), and the degrees of freedom of that error."""

    value: float
    error: float
    freedom: float

    @property
    def half_width(self) -> float:
        """Half of the confidence interval."""
        known = 0 < self.error < math.inf
        return float(t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * self.error if known else self.error

    @property
    def significant(self) -> bool:
        """Whether the confidence interval leaves 0 out."""
        return abs(self.value) > self.half_width

    @property
    def verdict(self) -> str:
        """better, worse, equal where it is not significant, or unknown where nothing tells the error."""
        if math.isinf(self.half_width):
            return "unknown"
        return ("better" if self.value > 0 else "worse") if self.significant else "equal"

    def __str__(self) -> str:
        points, half = 100 * self.value, 100 * self.half_width
        if math.isinf(half):
            return f"a difference of {points:+.1f} percentage points; a single training run cannot tell if that is chance"
        interval = f"{CONFIDENCE:.0%} confidence interval {points - half:+.1f} to {points + half:+.1f}".replace("%", " %")
        if self.significant:
            return f"{abs(points):.1f} percentage points {'better' if points > 0 else 'worse'} ({interval})"
        return f"a difference of {points:+.1f} percentage points, not significant ({interval})"


def welch(value: float, *means: Uncertainty) -> Difference:
    """The difference of two independent means, with the degrees of freedom of Welch and Satterthwaite."""
    variance = sum(mean.variance for mean in means)
    spread = sum(mean.variance**2 / mean.freedom for mean in means)
    return Difference(value, math.sqrt(variance), variance**2 / spread if spread else math.inf)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; nan for the latter where there is but one value."""
    values = np.asarray(values, dtype=float)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan
