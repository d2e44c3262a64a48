"""What each operator of each layer is worth: a table of accuracy, as a latency table is one of time."""

from collections.abc import Sequence

import numpy as np

from fbnet.network import size
from fbnet.space import SearchSpace

TILT = 1.0  # how far networks that are drawn lean to small or to large operators, in log-odds by standard deviation of log MACs


def draw_of_all_sizes(space: SearchSpace, count: int, seed: int) -> np.ndarray:
    """Random paths [count, layers], numbers of candidates; each leans in all its layers to small or to large operators.

    Drawn uniformly, networks would nearly all be of middling size: a mean of many layers hardly varies.
    """
    rng = np.random.default_rng(seed)
    tilts = rng.uniform(-TILT, TILT, count)
    drawn = []
    for layer in space.layers:
        macs = np.log1p([size([cell])[0] for cell in layer])
        spread = (macs - macs.mean()) / (macs.std() or 1)
        chances = np.exp(tilts[:, None] * spread)
        limits = np.cumsum(chances / chances.sum(1, keepdims=True), axis=1)
        drawn.append((rng.random((count, 1)) > limits[:, :-1]).sum(1))
    return np.stack(drawn, axis=1)


def worths(paths: np.ndarray, scores: Sequence[float], candidates: Sequence[int]) -> tuple[list[np.ndarray], float, float]:
    """What each candidate of each layer adds to a network's score, 0 in a layer's mean; its standard error; the fit's R².

    `paths` [n, layers], `scores` [n], and how many `candidates` each layer has. A ridge regression on which candidates a network
    has, whose penalty and errors are those of leaving one network out at a time.
    """
    from sklearn.linear_model import RidgeCV  # here: it takes a second to import, which most jobs would spend for nothing

    columns = np.concatenate([paths[:, [layer]] == np.arange(count) for layer, count in enumerate(candidates)], axis=1)
    scores = np.asarray(scores, dtype=float)
    fit = RidgeCV(alphas=np.logspace(-2, 3, 26)).fit(columns.astype(float), scores)
    squared = -fit.best_score_
    parts = np.split(fit.coef_, np.cumsum(candidates)[:-1])
    error = np.sqrt(squared * np.mean(candidates) / len(scores))
    return [part - part.mean() for part in parts], float(error), float(1 - squared / scores.var())
