"""Does a latency table predict what is measured? Random networks, their predicted latencies, and the measured ones."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, spearmanr

from fbnet.latency.table import LatencyTable
from fbnet.space import count as count_networks
from fbnet.space import walk

COLUMNS = ["ops", "drawn", "predicted_us", "measured_us", "first_us", "second_us", "error"]
_TILT = 6.0  # how strongly a sample may favour slow or fast operators
_DRAWS_PER_NETWORK = 32


class Measured(NamedTuple):
    """A network, how it was drawn, and what it takes; `first_us` and `second_us`, if it was measured twice."""

    ops: tuple[str, ...]
    drawn: str
    measured_us: float
    first_us: float | None = None
    second_us: float | None = None


def draw(table: LatencyTable, count: int, seed: int = 1) -> list[tuple[tuple[str, ...], str]]:
    """Random architectures, no two alike, each with how it was drawn: one half `uniform`, the other `stratified`.

    Uniform ones choose each operator with equal probability, so that nearly all are of medium latency; stratified ones are
    spread evenly over the range from the fastest to the slowest that sampling in favour of fast or slow operators reaches. Fewer
    than `count` where the space has no more.
    """
    rng = random.Random(seed)
    count = min(count, count_networks(table.space))
    drawn: dict[tuple[str, ...], str] = {}
    while len(drawn) < (count + 1) // 2:
        drawn[_tilted(table, rng, 0.0)] = "uniform"
    tilted = {_tilted(table, rng, rng.uniform(-_TILT, _TILT)) for _ in range(_DRAWS_PER_NETWORK * count)} - set(drawn)
    pool = {ops: table.predict(ops) for ops in sorted(tilted)}
    least, most = min(pool.values(), default=0.0), max(pool.values(), default=0.0)
    for us in np.linspace(least, most, count - len(drawn)):
        if pool:
            nearest = min(pool, key=lambda ops: abs(pool[ops] - us))
            drawn[nearest] = "stratified"
            del pool[nearest]
    return list(drawn.items())


def _tilted(table: LatencyTable, rng: random.Random, tilt: float) -> tuple[str, ...]:
    """An architecture whose operators have probability ∝ exp(tilt · latency / largest latency of the layer)."""

    def choose(index: int, numbers: list[int]) -> int:
        row = table.operators_us[index]
        return rng.choices(numbers, [np.exp(tilt * row[number] / max(max(row), 1e-9)) for number in numbers])[0]

    return table.space.ops(walk(table.space, choose))


def statistics(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """How well one series predicts the other.

    Of predicted / measured − 1: `mean_error`, the mean absolute percentage error (MAPE), `worst_error`, the largest, and `bias`,
    the mean with its sign. `scale`: the median of predicted / measured; `rescaled_error`: the MAPE of predictions divided by it.
    `spearman` and `kendall`: the rank correlations.
    """
    ratios = np.asarray(predicted) / np.asarray(measured)
    scale = float(np.median(ratios))
    return {
        "mean_error": float(np.abs(ratios - 1).mean()),
        "bias": float(ratios.mean() - 1),
        "worst_error": float(np.abs(ratios - 1).max()),
        "scale": scale,
        "rescaled_error": float(np.abs(ratios / scale - 1).mean()),
        "spearman": float(spearmanr(predicted, measured).statistic),
        "kendall": float(kendalltau(predicted, measured).statistic),
    }


def compared(table: LatencyTable, networks: Sequence[Measured]) -> tuple[list[dict], dict[str, str]]:
    """The rows of a validation (COLUMNS), and the lines of its header; among these `result`, the sentence."""
    rows = []
    for one in networks:
        predicted_us = table.predict(one.ops)
        shown = {"ops": " ".join(one.ops), "predicted_us": predicted_us, "error": predicted_us / one.measured_us - 1}
        rows.append(one._asdict() | shown)
    found = statistics([row["predicted_us"] for row in rows], [row["measured_us"] for row in rows])
    twice = all(one.first_us and one.second_us for one in networks)
    retest = statistics(*([getattr(one, key) for one in networks] for key in ("first_us", "second_us"))) if twice else {}
    lines = {"space": table.space.name, "result": sentence(found, retest, len(rows)), "networks": str(len(rows))}
    values = found | {f"retest_{key}": value for key, value in retest.items()}
    return rows, lines | {key: f"{value:.4f}" for key, value in values.items()}


def sentence(found: Mapping[str, float], retest: Mapping[str, float], count: int) -> str:
    """Two `statistics` in words: of the prediction of so many networks, and of measuring them again, if they were."""
    again = (
        f"Test-retest error: MAPE {retest['mean_error']:.1%} between two measurements (ρ {retest['spearman']:.3f})."
        if retest
        else "How they repeat is not told."
    )
    return (
        f"Predicted against measured latency of {count} random networks: mean absolute percentage error (MAPE) "
        f"{found['mean_error']:.1%}, at worst {found['worst_error']:.1%}, bias {found['bias']:+.1%}; MAPE "
        f"{found['rescaled_error']:.1%} once predictions are rescaled (divided by {found['scale']:.3f}); Spearman's ρ "
        f"{found['spearman']:.3f}, Kendall's τ {found['kendall']:.3f}. {again}"
    )
