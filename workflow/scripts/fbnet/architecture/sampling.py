"""Choose architectures within a latency budget: by theta, by a rule of thumb, or blindly."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.special import log_softmax

from fbnet.errors import InputError
from fbnet.latency import LatencyTable
from fbnet.network import size

RULES = ("macs", "log_macs")  # what costs nothing
TRIES = 1000  # random draws for each that is wanted, before too few of them keep the budget
BINS = 1 << 14  # of a latency budget, for counting the architectures within it

Pick = tuple[int, ...]  # the number of the chosen candidate, layer by layer


def draw(
    table: LatencyTable, theta, method: str, count: int = 1, seed: int = 0, budget_us: float = math.inf
) -> list[tuple[tuple[str, ...], float]]:
    """Architectures within a latency budget and their log-probability Σ log softmax(theta), most probable first, each once.

    `theta`: a logit per candidate for each searched layer. "argmax" gives the `count` most probable, "softmax" draws `count`
    times within the budget, layer by layer (FBNet, section 3.3); fewer may remain. Raises InputError if none keeps the budget.
    """
    values = log_probs(theta)
    if method == "argmax":
        picks = [pick for pick, _ in zip(best(table, values, budget_us), range(count), strict=False)]
    else:
        picks = set(_random(table, values, count, seed, budget_us))
    if not picks:
        raise InputError(f"no architecture within {budget_us:.0f} µs was found: allow more, or choose sample.method argmax")
    drawn = [(ops_of(table, pick), float(sum(row[i] for row, i in zip(values, pick, strict=True)))) for pick in picks]
    return sorted(drawn, key=lambda item: (-item[1], item[0]))


def best(table: LatencyTable, values: Sequence[np.ndarray], budget_us: float = math.inf) -> Iterator[Pick]:
    """The architectures within a budget by the sum of their candidates' values, from the largest on, exactly.

    `values`: one for each candidate of each layer, as log-probabilities for the most probable architectures. max Σ value
    subject to Σ latency ≤ budget, one candidate a layer: a multiple-choice knapsack, solved as an integer program; each solution
    is excluded from the next.
    """
    pick = tuple(int(row.argmax()) for row in values)
    layers = np.repeat(np.arange(len(values)), [len(row) for row in values])
    starts = np.searchsorted(layers, np.arange(len(values)))
    latencies = np.concatenate([np.asarray(row) for row in table.operators_us])
    left = budget_us - sum(table.fixed_us)
    one_a_layer = LinearConstraint(layers == np.arange(len(values))[:, None], 1, 1)
    constraints = [one_a_layer]
    if math.isfinite(budget_us):
        constraints.append(LinearConstraint(latencies / max(left, 1e-9), -np.inf, 1))
    costs = -np.concatenate(values)
    # The argmax needs no program, and is the answer wherever it keeps the budget.
    while True:
        chosen = starts + pick
        if latencies[chosen].sum() <= left:
            yield pick
        # also where the solver took what is over the budget by less than its tolerance
        constraints.append(LinearConstraint(np.isin(np.arange(len(costs)), chosen), -np.inf, len(values) - 1))
        solved = milp(costs, integrality=1, bounds=Bounds(0, 1), constraints=constraints, options={"mip_rel_gap": 0})
        if solved.x is None:
            return
        pick = tuple(int(part.argmax()) for part in np.split(solved.x, starts[1:]))


def _random(table: LatencyTable, values: Sequence[np.ndarray], count: int, seed: int, budget_us: float) -> Iterator[Pick]:
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(count * (TRIES if math.isfinite(budget_us) else 1)):
        pick = tuple(int(rng.choice(len(row), p=np.exp(row))) for row in values)
        if table.predict(ops_of(table, pick)) <= budget_us:
            found += 1
            yield pick
        if found == count:
            return


def log_probability(table: LatencyTable, theta, ops: Sequence[str]) -> float:
    """The log-probability Σ log softmax(theta) of an architecture."""
    layers = zip(table.space.layers, log_probs(theta), ops, strict=True)
    return float(sum(row[[cell.op for cell in layer].index(op)] for layer, row, op in layers))


def log_probs(theta) -> list[np.ndarray]:
    """Log softmax(theta), an array for each layer."""
    return [log_softmax(np.asarray(logits, dtype=np.float64)) for logits in theta]


def by_rule(table: LatencyTable, rule: str, budget_us: float = math.inf) -> tuple[str, ...]:
    """What a rule of thumb chooses within a latency budget: "macs", the most MACs; "log_macs", the largest Σ log(1 + MACs).

    The sum is over layers. Raises InputError if no architecture keeps the budget.
    """
    for pick in best(table, rule_values(table, rule), budget_us):
        return ops_of(table, pick)
    raise InputError(f"no architecture of space {table.space.name} takes at most {budget_us:.0f} µs: allow more latency")


def rule_values(table: LatencyTable, rule: str) -> list[np.ndarray]:
    """What each candidate of each layer counts by a rule."""
    macs = [np.array([size([cell])[0] for cell in layer], dtype=float) for layer in table.space.layers]
    return [row / max(map(np.max, macs)) for row in macs] if rule == "macs" else [np.log1p(row) for row in macs]


def draw_spread(table: LatencyTable, count: int, least_us: float, most_us: float, seed: int = 0) -> list[tuple[str, ...]]:
    """So many architectures, no two alike, each random within a latency budget of its own: these go from least to most evenly.

    Raises InputError if there are too few.
    """
    drawn: dict[tuple[str, ...], None] = {}
    for number, budget_us in enumerate(np.linspace(least_us, most_us, count)):
        own = seed + 1 + number  # the largest limit may be the budget of a random set, which has `seed`
        drawn[next(ops for ops in draw_blindly(table, number + 1, budget_us, own) if ops not in drawn)] = None
    return list(drawn)


def draw_blindly(
    table: LatencyTable, count: int, budget_us: float, seed: int = 0, key: str = "evaluation.random or evaluation.ranked"
) -> list[tuple[str, ...]]:
    """So many architectures, no two alike, uniformly drawn from all of the space that keep a latency budget.

    The architectures from each layer on that use at most so much of the budget are counted, in BINS bins of it; each layer
    then chooses a candidate in proportion to how many ways to go on it leaves. Latencies are rounded up to whole bins: what
    keeps the budget by less than a bin a layer is never drawn. `key` is what to lower where there are
    too few. Raises InputError then.
    """
    left = budget_us - sum(table.fixed_us)
    costs = [np.ceil(np.asarray(row) / left * BINS - 1e-9).astype(int) for row in table.operators_us]
    ways = [np.ones(BINS + 1)]  # from the end: for each rest of the budget, the ways to go on
    for row in reversed(costs):
        ways.append(sum(np.concatenate([np.zeros(min(cost, BINS + 1)), ways[-1][: max(BINS + 1 - cost, 0)]]) for cost in row))
    ways.reverse()
    if ways[0][BINS] < count:
        raise InputError(
            f"only {ways[0][BINS]:.0f} architectures of space {table.space.name} take at most {budget_us:.0f} µs, but "
            f"{count} random ones are wanted: lower {key}, or allow more latency"
        )
    rng = np.random.default_rng([seed, round(1000 * budget_us)])  # networks of another budget are drawn apart from these
    picks: dict[Pick, None] = {}
    while len(picks) < count:
        rest, pick = BINS, []
        for row, after in zip(costs, ways[1:], strict=True):
            chances = np.array([after[rest - cost] if cost <= rest else 0.0 for cost in row])
            pick.append(int(rng.choice(len(row), p=chances / chances.sum())))
            rest -= row[pick[-1]]
        picks[tuple(pick)] = None
    return [ops_of(table, pick) for pick in picks]


def described(table: LatencyTable, classes: int, architectures: dict[str, Sequence[str]]) -> pd.DataFrame:
    """Named architectures as rows: name, ops, latency_us by the table, macs, params."""
    rows = []
    for name, ops in architectures.items():
        macs, params = size(table.space.network_cells(ops, classes))
        rows.append((name, " ".join(ops), table.predict(ops), macs, params))
    return pd.DataFrame(rows, columns=["name", "ops", "latency_us", "macs", "params"])


def ops_of(table: LatencyTable, pick: Pick) -> tuple[str, ...]:
    """The operators of a pick."""
    return tuple(layer[i].op for layer, i in zip(table.space.layers, pick, strict=True))
