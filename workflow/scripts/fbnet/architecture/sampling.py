"""Choose architectures within budgets: by theta, by a rule of thumb, or blindly."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from fbnet.architecture.budgets import latency_budget
from fbnet.architecture.program import Budget, Pick, Values, best, refusal
from fbnet.architecture.rules import RULES
from fbnet.errors import InputError
from fbnet.latency import LatencyTable
from fbnet.network import size
from fbnet.space import SearchSpace

TRIES = 1000  # random draws for each that is wanted, before too few of them keep the budgets
BINS = 1 << 14  # of a budget, for counting the architectures within it


def draw(
    space: SearchSpace, theta, method: str, count: int = 1, seed: int = 0, budgets: Sequence[Budget] = ()
) -> list[tuple[tuple[str, ...], float]]:
    """Architectures within budgets and their log-probability Σ log softmax(theta), most probable first, each once.

    `theta`: a logit per candidate for each searched layer. "argmax" gives the `count` most probable, "softmax" draws `count`
    times within the budgets, layer by layer (FBNet, section 3.3); fewer may remain. Raises InputError if none keeps the budgets.
    """
    values = log_probs(theta)
    if method == "argmax":
        picks = [pick for pick, _ in zip(best(space, values, budgets), range(count), strict=False)]
    else:
        picks = set(_random(space, values, count, seed, budgets))
    if not picks:
        if next(best(space, values, budgets), None) is None:
            raise InputError(refusal(space, budgets))
        within = " and ".join(map(str, budgets))
        raise InputError(f"no architecture that keeps {within} was drawn: allow more, or choose sample.method argmax")
    drawn = [(space.ops(pick), float(sum(row[i] for row, i in zip(values, pick, strict=True)))) for pick in picks]
    return sorted(drawn, key=lambda item: (-item[1], item[0]))


def _random(space: SearchSpace, values: Values, count: int, seed: int, budgets: Sequence[Budget]) -> Iterator[Pick]:
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(count * (TRIES if budgets else 1)):
        pick, channels = [], space.stem.c_out
        for layer, row in zip(space.layers, values, strict=True):
            enters = np.array([cell.c_in == channels for cell in layer])
            chances = np.exp(row) if enters.all() else np.exp(row) * enters / np.exp(row[enters]).sum()
            pick.append(int(rng.choice(len(row), p=chances)))
            channels = layer[pick[-1]].c_out
        if all(budget.allows(pick) for budget in budgets):
            found += 1
            yield tuple(pick)
        if found == count:
            return


def log_probability(space: SearchSpace, theta, ops: Sequence[str]) -> float:
    """The log-probability Σ log softmax(theta) of an architecture."""
    return float(sum(row[number] for row, number in zip(log_probs(theta), space.numbers(ops), strict=True)))


def log_probs(theta) -> list[np.ndarray]:
    """Log softmax(theta), an array for each layer."""
    return [log_softmax(np.asarray(logits, dtype=np.float64)) for logits in theta]


def by_rule(space: SearchSpace, rule: str, budgets: Sequence[Budget] = ()) -> tuple[str, ...]:
    """What a rule of thumb (RULES) chooses within budgets. Raises InputError if no architecture keeps them."""
    for pick in best(space, rule_values(space, rule), budgets):
        return space.ops(pick)
    raise InputError(refusal(space, budgets))


def rule_values(space: SearchSpace, rule: str) -> list[np.ndarray]:
    """What each candidate of each layer counts by a rule, relative to the one that counts most."""
    rows = [np.array([RULES[rule].value(*size([cell])) for cell in layer], dtype=float) for layer in space.layers]
    return [row / max(map(np.max, rows)) for row in rows]


def draw_spread(table: LatencyTable, count: int, least_us: float, most_us: float, seed: int = 0) -> list[tuple[str, ...]]:
    """So many architectures, no two alike, each random within a latency budget of its own: these go from least to most evenly.

    Raises InputError if there are too few.
    """
    drawn: dict[tuple[str, ...], None] = {}
    for number, budget_us in enumerate(np.linspace(least_us, most_us, count)):
        own = seed + 1 + number  # the largest limit may be the budget of a random set, which has `seed`
        within = [latency_budget(table, float(budget_us))]
        drawn[next(ops for ops in draw_blindly(table.space, number + 1, within, own) if ops not in drawn)] = None
    return list(drawn)


def draw_blindly(
    space: SearchSpace, count: int, budgets: Sequence[Budget], seed: int = 0, key: str = "evaluation.random or evaluation.ranked"
) -> list[tuple[str, ...]]:
    """So many architectures, no two alike, uniformly drawn from all of the space that keep budgets.

    Those that keep the tightest budget are counted, in bins of it (`_Ways`), and drawn by that; those that exceed another are
    left out. `key` is what to lower where there are too few. Raises InputError then.
    """
    free = Budget("", 1.0, [np.zeros(len(layer)) for layer in space.layers])
    peaks, sums = ([budget for budget in budgets if budget.peak is peak] for peak in (True, False))
    ways = min((_Ways(space, budget, peaks) for budget in sums or [free]), key=lambda ways: ways.count)
    within = " and ".join(map(str, budgets))
    if ways.count < count:
        raise InputError(
            f"only {ways.count:.0f} architectures of space {space.name} keep {within}, but {count} random ones are wanted: lower "
            f"{key}, or allow more"
        )
    rng = np.random.default_rng([seed, round(1000 * budgets[0].most)])  # networks of another budget are drawn apart from these
    picks: dict[Pick, None] = {}
    for _ in range(count * TRIES):
        pick = ways.draw(rng)
        if all(budget.allows(pick) for budget in sums if budget is not ways.budget):
            picks[pick] = None
        if len(picks) == count:
            return [space.ops(pick) for pick in picks]
    raise InputError(
        f"only {len(picks)} architectures of space {space.name} were drawn that keep {within}, but {count} random ones are "
        f"wanted: lower {key}, or allow more"
    )


class _Ways:
    """The architectures that keep a budget, counted from each layer on by what they use of it, in BINS bins of it.

    Costs are rounded up to whole bins: what keeps the budget by less than a bin a layer is not among them; nor is what exceeds
    one of `peaks`.
    """

    def __init__(self, space: SearchSpace, budget: Budget, peaks: Sequence[Budget]):
        self.space, self.budget = space, budget
        left = budget.most - budget.fixed
        costs = [np.ceil(np.asarray(row) / max(left, 1e-9) * BINS - 1e-9 if left >= 0 else row + np.inf) for row in budget.costs]
        for peak in peaks:
            over = [(np.asarray(row) > peak.most) | (peak.fixed > peak.most) for row in peak.costs]
            costs = [np.where(out, np.inf, row) for out, row in zip(over, costs, strict=True)]
        self.costs = [np.minimum(row, BINS + 1).astype(int) for row in costs]
        # For each number of channels that a layer may get, and each rest of the budget, the ways to go on.
        self.ways = [{cell.c_out: np.ones(BINS + 1) for cell in space.layers[-1]}]
        for layer, row in zip(reversed(space.layers), reversed(self.costs), strict=True):
            on: dict[int, list] = {}
            for cell, cost in zip(layer, row, strict=True):
                on.setdefault(cell.c_in, []).append(np.concatenate([np.zeros(cost), self.ways[0][cell.c_out][: BINS + 1 - cost]]))
            self.ways.insert(0, {channels: sum(parts) for channels, parts in on.items()})

    @property
    def count(self) -> float:
        """How many there are."""
        return self.ways[0][self.space.stem.c_out][BINS]

    def draw(self, rng: np.random.Generator) -> Pick:
        """One of them: each layer chooses a candidate in proportion to how many ways to go on it leaves."""
        rest, pick, channels = BINS, [], self.space.stem.c_out
        for layer, row, after in zip(self.space.layers, self.costs, self.ways[1:], strict=True):
            chances = np.array(
                [
                    after[cell.c_out][rest - cost] if cell.c_in == channels and cost <= rest else 0.0
                    for cell, cost in zip(layer, row, strict=True)
                ]
            )
            pick.append(int(rng.choice(len(row), p=chances / chances.sum())))
            rest -= row[pick[-1]]
            channels = layer[pick[-1]].c_out
        return tuple(pick)


def described(table: LatencyTable, classes: int, architectures: dict[str, Sequence[str]]) -> pd.DataFrame:
    """Named architectures as rows: name, ops, latency_us by the table, macs, params."""
    rows = []
    for name, ops in architectures.items():
        macs, params = size(table.space.network_cells(ops, classes))
        rows.append((name, " ".join(ops), table.predict(ops), macs, params))
    return pd.DataFrame(rows, columns=["name", "ops", "latency_us", "macs", "params"])
