"""Random search, the baseline that a search must beat at its own cost: the best by validation of k random networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RandomSearch:
    """What is to be expected of the best by validation of `drawn` networks, from a pool of more that were all trained.

    `chances`: of each network of the pool to be chosen; `top1`: the expected test accuracy, `top1_sd` the standard deviation of
    a single random search's, `error` the standard error of `top1`, inf for a pool of one.
    """

    drawn: int
    chances: np.ndarray
    top1: float
    top1_sd: float
    error: float


def random_search(validation: np.ndarray, test: np.ndarray, drawn: int) -> RandomSearch:
    """Random search among n networks, each trained once: the mean over all ways to draw, and over the r training runs.

    `validation`, `test`: accuracies [r, n]; drawn: at most n. Without replacement, so that the mean is unbiased (Tang et al.
    2020, arXiv 2004.13705, on Dodge et al. 2019); its standard error is the jackknife's over the networks (Arvesen 1969).
    """
    validation, test = np.asarray(validation), np.asarray(test)
    n = validation.shape[1]
    chances = np.array([_chances(row, drawn) for row in validation])
    top1 = float((chances * test).sum(1).mean())
    variance = float((chances * (test - top1) ** 2).sum(1).mean())
    error = math.inf
    if n > 1:
        without = []
        for left_out in range(n):
            rest = np.arange(n) != left_out
            fewer = np.array([_chances(row, min(drawn, n - 1)) for row in validation[:, rest]])
            without.append((fewer * test[:, rest]).sum(1).mean())
        error = math.sqrt((n - 1) / n * ((without - np.mean(without)) ** 2).sum())
    return RandomSearch(drawn, chances.mean(0), top1, math.sqrt(variance), error)


def affordable(cost_s: float, training_s: float) -> int:
    """How many networks can be trained, one run each, for what a search costs; one at least."""
    return max(1, int(cost_s / training_s))


def _chances(validation: Sequence[float], drawn: int) -> np.ndarray:
    """How likely each network is the best of so many that are drawn without replacement: those below it fill the other places."""
    n = len(validation)
    places = np.argsort(np.argsort(validation, kind="stable"), kind="stable")
    return np.array([math.comb(int(place), drawn - 1) / math.comb(n, drawn) for place in places])
