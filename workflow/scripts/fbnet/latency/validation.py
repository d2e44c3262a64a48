"""Does a latency table predict what is measured? Random networks, their predicted latencies, and the measured ones."""

import math
import random
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import kendalltau, spearmanr

from fbnet.latency.table import LatencyTable

COLUMNS = ["ops", "drawn", "predicted_us", "measured_us", "first_us", "second_us", "error"]
_TILT = 6.0  # how strongly a draw may favour slow or fast operators
_DRAWS_PER_NETWORK = 32


def draw(table: LatencyTable, count: int, seed: int = 1) -> list[tuple[tuple[str, ...], str]]:
    """Random architectures, no two alike, each with how it was drawn: one half `uniform`, the other `stratified`.

    Uniform ones choose each operator with equal probability, so that nearly all are of middling latency; stratified ones are
    spread evenly over the range from the fastest to the slowest that draws in favour of fast or slow operators reach. Fewer
    than `count` where the space has no more.
    """
    rng = random.Random(seed)
    count = min(count, math.prod(map(len, table.space.layers)))
    drawn: dict[tuple[str, ...], str] = {}
    while len(drawn) < (count + 1) // 2:
        drawn[_tilted(table, rng, 0.0)] = "uniform"
    tilted = {_tilted(table, rng, rng.uniform(-_TILT, _TILT)) for _ in range(_DRAWS_PER_NETWORK * count)} - set(drawn)
    pool = {ops: table.predict(ops) for ops in sorted(tilted)}
    least, most = min(pool.values(), default=0.0), max(pool.values(), default=0.0)
    for level in np.linspace(least, most, count - len(drawn)):
        if pool:
            nearest = min(pool, key=lambda ops: abs(pool[ops] - level))
            drawn[nearest] = "stratified"
            del pool[nearest]
    return list(drawn.items())


def _tilted(table: LatencyTable, rng: random.Random, tilt: float) -> tuple[str, ...]:
    """An architecture whose operators have probability ∝ exp(tilt · latency / largest latency of the layer)."""
    return tuple(
        rng.choices([cell.op for cell in layer], [np.exp(tilt * us / max(max(row), 1e-9)) for us in row])[0]
        for layer, row in zip(table.space.layers, table.operators_us, strict=True)
    )


def statistics(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """How well one series foretells the other.

    `mean_error` and `worst_error` of |predicted / measured − 1|, `bias` without the bars; `level`: the middling ratio − 1, and
    `level_error`: the mean error once it is put right; `spearman` and `kendall`: the rank correlations.
    """
    ratios = np.asarray(predicted) / np.asarray(measured)
    level = float(np.median(ratios))
    return {
        "mean_error": float(np.abs(ratios - 1).mean()),
        "bias": float(ratios.mean() - 1),
        "worst_error": float(np.abs(ratios - 1).max()),
        "level": level - 1,
        "level_error": float(np.abs(ratios / level - 1).mean()),
        "spearman": float(spearmanr(predicted, measured).statistic),
        "kendall": float(kendalltau(predicted, measured).statistic),
    }


def sentence(found: Mapping[str, float], floor: Mapping[str, float], count: int) -> str:
    """Two `statistics` in words: of the prediction of so many networks, and of their measuring again."""
    return (
        f"{count} random networks: predicted within {found['mean_error']:.1%} of the measured latency in the mean, "
        f"{found['worst_error']:.1%} at worst (bias {found['bias']:+.1%}; {found['level_error']:.1%} once the level, "
        f"{found['level']:+.1%}, is put right; Spearman {found['spearman']:.3f}, Kendall {found['kendall']:.3f}); "
        f"measured twice they differ by {floor['mean_error']:.1%} (Spearman {floor['spearman']:.3f})"
    )
