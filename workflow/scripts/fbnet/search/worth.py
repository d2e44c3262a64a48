"""What each operator of each layer is worth: a table of accuracy, as a latency table is one of time."""

from collections.abc import Sequence

import numpy as np

from fbnet.network import size
from fbnet.space import SearchSpace, alike, extreme

TILT = 1.0  # how far networks that are drawn lean to small or to large operators, in log-odds by standard deviation of log MACs


def largest(space: SearchSpace) -> list[int]:
    """The path that learns the labels, the number of a candidate for each layer: of each the one with the most MACs."""
    return list(extreme(space, [[size([cell])[0] for cell in layer] for layer in space.layers]))


def draw_of_all_sizes(space: SearchSpace, count: int, seed: int) -> np.ndarray:
    """Random paths [count, layers], numbers of candidates; each leans everywhere to small or to large operators and channels.

    Drawn uniformly, networks would nearly all be of middling size: a mean of many layers hardly varies.
    """
    rng = np.random.default_rng(seed)
    tilts = rng.uniform(-TILT, TILT, count)
    before = np.full(count, space.stem.c_out)
    drawn = []
    for layer in space.layers:
        groups = alike(layer)
        after = np.zeros(count, dtype=int)
        widths = np.array(list(dict.fromkeys(c_out for _, c_out in groups)))
        if len(groups) > len({c_in for c_in, _ in groups}):  # a stage begins that lists channels
            after = widths[_leaning(np.log(widths), tilts, rng.random((count, 1)))]
        else:
            for c_in, c_out in groups:
                after[before == c_in] = c_out
        chosen, sample = np.zeros(count, dtype=int), rng.random((count, 1))
        for (c_in, c_out), numbers in groups.items():
            rows = (before == c_in) & (after == c_out)
            macs = np.log1p([size([layer[number]])[0] for number in numbers])
            chosen[rows] = np.array(numbers)[_leaning(macs, tilts[rows], sample[rows])]
        drawn.append(chosen)
        before = after
    return np.stack(drawn, axis=1)


def _leaning(sizes: np.ndarray, tilts: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """For each of n networks a number of one of these `sizes`, which are logarithms; `tilts` [n], `sample` [n, 1] in [0, 1)."""
    spread = (sizes - sizes.mean()) / (sizes.std() or 1)
    chances = np.exp(tilts[:, None] * spread)
    limits = np.cumsum(chances / chances.sum(1, keepdims=True), axis=1)
    return (sample > limits[:, :-1]).sum(1)


def worths_of_candidates(space: SearchSpace, paths: np.ndarray, scores: Sequence[float]) -> tuple[list[np.ndarray], float, float]:
    """`worths` of the candidates of each layer of a space.

    A network's score is a sum over the operators of its layers, and the channels of its stages: a candidate is worth what its
    operator is, and where a stage begins, its channels.
    """
    factors = []  # each a layer, and the level that each of its candidates has of it
    for number, layer in enumerate(space.layers):
        factors.append((number, _levels([cell.op for cell in layer])))
        groups = alike(layer)
        if len(groups) > len({c_in for c_in, _ in groups}):
            factors.append((number, _levels([cell.c_out for cell in layer])))
    levels = np.stack([level[paths[:, number]] for number, level in factors], axis=1)
    found, error, explained = worths(levels, scores, [level.max() + 1 for _, level in factors])
    parts: list[list[np.ndarray]] = [[] for _ in space.layers]
    for (number, level), worth in zip(factors, found, strict=True):
        parts[number].append(worth[level])
    return [sum(rest, start=first) for first, *rest in parts], error, explained


def _levels(names: Sequence) -> np.ndarray:
    """The number of each name among those that differ."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


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
