"""Medians of repeated timings on a machine whose speed drifts."""

from collections.abc import Hashable, Sequence

import numpy as np

WINDOW = 10  # passes before and after one that tell the speed of the machine during it
_ITERATIONS = 3


def steady(passes: Sequence[Sequence[tuple[Hashable, float]]]) -> tuple[dict[Hashable, np.ndarray], np.ndarray]:
    """The samples of each key as if the machine had kept its median speed, and the drift of each pass (1: the median).

    `passes`: in the order of time, (key, µs) of what ran in each. A sample is taken for median[key] · drift[pass]; the drift is
    the running median of a pass's time over the sum of its keys' medians, a median that of a key's samples over their drift.
    """
    number = {key: i for i, key in enumerate(dict.fromkeys(key for one in passes for key, _ in one))}
    keys = np.array([number[key] for one in passes for key, _ in one])
    times = np.array([time for one in passes for _, time in one])
    where = np.repeat(np.arange(len(passes)), [len(one) for one in passes])
    order = np.argsort(keys, kind="stable")
    bounds = np.cumsum(np.bincount(keys))[:-1]
    totals = np.bincount(where, times)
    drift = np.ones(len(passes))
    for _ in range(_ITERATIONS):
        medians = np.array([np.median(part) for part in np.split((times / drift[where])[order], bounds)])
        drift = _running_median(totals / np.bincount(where, medians[keys]))
        drift /= np.median(drift)
    samples = np.split((times / drift[where])[order], bounds)
    return dict(zip(number, samples, strict=True)), drift


def _running_median(values: np.ndarray) -> np.ndarray:
    return np.array([np.median(values[max(0, i - WINDOW) : i + WINDOW + 1]) for i in range(len(values))])


def half_width(iqr: float, count: int) -> float:
    """Half of the 95 % confidence interval of the median of `count` samples, from their interquartile range, in its unit.

    McGill, Tukey and Larsen 1978, Variations of Box Plots.
    """
    return 1.25 * 1.96 / 1.35 * iqr / np.sqrt(count)


def iqr(values: np.ndarray) -> float:
    """The interquartile range."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low)
