"""Choose architectures within a latency budget: by theta, by a rule of thumb, or blindly."""

import itertools
import math
import operator
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
    log_probs = _log_probs(theta)
    if method == "argmax":
        picks = [pick for pick, _ in zip(best(table, log_probs, budget_us), range(count), strict=False)]
    else:
        picks = set(_random(table, log_probs, count, seed, budget_us))
    if not picks:
        raise InputError(f"no architecture within {budget_us:.0f} µs was found: allow more, or choose sample.method argmax")
    drawn = [(_ops(table, pick), float(sum(row[i] for row, i in zip(log_probs, pick, strict=True)))) for pick in picks]
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


def _random(table: LatencyTable, log_probs: Sequence[np.ndarray], count: int, seed: int, budget_us: float) -> Iterator[Pick]:
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(count * (TRIES if math.isfinite(budget_us) else 1)):
        pick = tuple(int(rng.choice(len(row), p=np.exp(row))) for row in log_probs)
        if table.predict(_ops(table, pick)) <= budget_us:
            found += 1
            yield pick
        if found == count:
            return


def log_probability(table: LatencyTable, theta, ops: Sequence[str]) -> float:
    """The log-probability Σ log softmax(theta) of an architecture."""
    layers = zip(table.space.layers, _log_probs(theta), ops, strict=True)
    return float(sum(row[[cell.op for cell in layer].index(op)] for layer, row, op in layers))


def _log_probs(theta) -> list[np.ndarray]:
    return [log_softmax(np.asarray(logits, dtype=np.float64)) for logits in theta]


def entrants(
    table: LatencyTable, theta, count: int, rules: Sequence[str], parts: int, budget_us: float = math.inf
) -> dict[tuple[str, ...], str]:
    """Who takes part in a race: architectures within a latency budget, and by what each was chosen. No two are alike.

    That is the `count` most probable ones by theta, what each rule chooses, and what these choose together: for each way to share
    `parts` among theta and the rules, the best by the sum of their values in these shares, each scaled so that its sum over the
    layers of a random network has a standard deviation of 1. Raises InputError if there are too few within the budget.
    """
    scores = {"theta": _log_probs(theta)} | {rule: _values(table, rule) for rule in rules}
    for name, rows in scores.items():
        scale = math.sqrt(sum(row.var() for row in rows)) or 1.0
        scores[name] = [(row - row.mean()) / scale for row in rows]
    shares = [shares for shares in itertools.product(range(parts + 1), repeat=len(scores)) if sum(shares) == parts]
    chosen: dict[tuple[str, ...], str] = {}
    for of_each in sorted(shares, key=lambda of_each: (-max(of_each), [-share for share in of_each])):  # each alone at first
        mixed = [sum(map(operator.mul, of_each, rows)) for rows in zip(*scores.values(), strict=True)]
        said = [(share, name) for share, name in zip(of_each, scores, strict=True) if share]
        new = (ops for pick in best(table, mixed, budget_us) if (ops := _ops(table, pick)) not in chosen)
        wanted = count if of_each[0] == parts else 1
        found = list(itertools.islice(new, wanted))
        chosen |= dict.fromkeys(found, " + ".join(f"{share}/{parts} {name}" if share < parts else name for share, name in said))
        if len(found) < wanted:
            raise InputError(
                f"a race wants {count - 1 + len(shares)} architectures, but only {len(chosen)} take at most {budget_us:.0f} µs: "
                f"lower sample.count or race.parts, or allow more latency"
            )
    return chosen


def by_rule(table: LatencyTable, rule: str, budget_us: float = math.inf) -> tuple[str, ...]:
    """What a rule of thumb chooses within a latency budget: "macs", the most MACs; "log_macs", the largest Σ log(1 + MACs).

    The sum is over layers. Raises InputError if no architecture keeps the budget.
    """
    for pick in best(table, _values(table, rule), budget_us):
        return _ops(table, pick)
    raise InputError(f"no architecture of space {table.space.name} takes at most {budget_us:.0f} µs: allow more latency")


def _values(table: LatencyTable, rule: str) -> list[np.ndarray]:
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


def draw_blindly(table: LatencyTable, count: int, budget_us: float, seed: int = 0) -> list[tuple[str, ...]]:
    """So many architectures, no two alike, uniformly drawn from all of the space that keep a latency budget.

    The architectures from each layer on that use at most so much of the budget are counted, in BINS bins of it; each layer
    then chooses a candidate in proportion to how many ways to go on it leaves. Latencies are rounded up to whole bins: what
    keeps the budget by less than a bin a layer is never drawn. Raises InputError if there are too few.
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
            f"{count} random ones are wanted: lower evaluation.random or evaluation.ranked, or allow more latency"
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
    return [_ops(table, pick) for pick in picks]


def described(table: LatencyTable, classes: int, architectures: dict[str, Sequence[str]]) -> pd.DataFrame:
    """Named architectures as rows: name, ops, latency_us by the table, macs, params."""
    rows = []
    for name, ops in architectures.items():
        macs, params = size(table.space.network_cells(ops, classes))
        rows.append((name, " ".join(ops), table.predict(ops), macs, params))
    return pd.DataFrame(rows, columns=["name", "ops", "latency_us", "macs", "params"])


def _ops(table: LatencyTable, pick: Pick) -> tuple[str, ...]:
    return tuple(layer[i].op for layer, i in zip(table.space.layers, pick, strict=True))
