"""The best networks of a space within budgets of several kinds at once, exactly: an integer program."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from fbnet.architecture.budget import in_words
from fbnet.space import SearchSpace

Pick = tuple[int, ...]  # the number of the chosen candidate, layer by layer
Values = Sequence[np.ndarray]  # a number for each candidate of each layer


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost: candidate i of layer l costs `costs[l][i]`, and what every network has `fixed`.

    Costs add up; of a `peak`, as memory is, only the largest counts. `name` is its key, of which the unit follows.
    """

    name: str
    most: float
    costs: Values
    fixed: float = 0.0
    peak: bool = False

    def of(self, pick: Pick) -> float:
        """What a network costs."""
        costs = [row[number] for row, number in zip(self.costs, pick, strict=True)]
        return max(self.fixed, *costs) if self.peak else self.fixed + float(sum(costs))

    def allows(self, pick: Pick) -> bool:
        """Whether a network keeps it, rounding aside."""
        return self.of(pick) <= self.most * (1 + 1e-9)

    def __str__(self) -> str:
        return f"{self.name} {in_words(self.name, self.most)}"


def best(space: SearchSpace, values: Values, budgets: Sequence[Budget] = ()) -> Iterator[Pick]:
    """The networks within budgets by the sum of their candidates' values, from the largest on, exactly.

    `values` may be log-probabilities, for the most probable networks. max Σ value subject to Σ cost ≤ budget for each budget, one
    candidate a layer, of as many channels as its neighbours: a multiple-choice knapsack, solved as an integer program; each
    solution is excluded from the next.
    """
    starts = np.cumsum([0, *map(len, values[:-1])])
    constraints, bounds = _structure(space), _within(budgets, sum(map(len, values)))
    for budget in budgets:
        if not budget.peak:
            left = budget.most - budget.fixed
            constraints.append(LinearConstraint(np.concatenate(budget.costs) / max(left, 1e-9), -np.inf, 1))
    costs = -np.concatenate(values)
    # The argmax needs no program, and is the answer wherever it is a network that keeps the budgets.
    pick = tuple(int(row.argmax()) for row in values)
    while True:
        # The solver also takes what is over a budget by less than its tolerance.
        if _agrees(space, pick) and all(budget.allows(pick) for budget in budgets):
            yield pick
        chosen = np.isin(np.arange(len(costs)), starts + pick)
        constraints.append(LinearConstraint(chosen, -np.inf, len(values) - 1))
        solved = milp(costs, integrality=1, bounds=bounds, constraints=constraints, options={"mip_rel_gap": 0})
        if solved.x is None:
            return
        pick = _picked(solved.x, space)


def binding(space: SearchSpace, values: Values, budgets: Sequence[Budget], pick: Pick) -> list[str]:
    """The names of the budgets that keep a better network than this from being chosen: each alone, the others as they are."""
    reached = _sum(values, pick)
    found = []
    for budget in budgets:
        others = [other for other in budgets if other is not budget]
        if _sum(values, next(best(space, values, others))) > reached + 1e-6:
            found.append(budget.name)
    return found


def refusal(space: SearchSpace, budgets: Sequence[Budget]) -> str:
    """A sentence about budgets that no network keeps: which to loosen, and to what.

    That is one of them, where it suffices, or several together, so that the shares by which they are loosened have the least sum.
    """
    alone = [(budget, _loosened(space, budgets, [budget])) for budget in budgets]
    allow = [f"{budget.name} {in_words(budget.name, budget.of(pick))}" for budget, pick in alone if pick]
    word = " or "
    if not allow:
        pick = _loosened(space, budgets, budgets)
        over = [budget for budget in budgets if not budget.allows(pick)]
        allow, word = [f"{budget.name} {in_words(budget.name, budget.of(pick))}" for budget in over], " and "
    return f"no network of space {space.name} keeps {' and '.join(map(str, budgets))}: allow {word.join(allow)}"


def _sum(values: Values, pick: Pick) -> float:
    return float(sum(row[number] for row, number in zip(values, pick, strict=True)))


def _structure(space: SearchSpace) -> list[LinearConstraint]:
    """What makes a choice of candidates a network: one a layer, and from one to the next the same number of channels."""
    counts = list(map(len, space.layers))
    layer_of = np.repeat(np.arange(len(counts)), counts)
    structure = [LinearConstraint(layer_of == np.arange(len(counts))[:, None], 1, 1)]
    for number, (before, after) in enumerate(pairwise(space.layers)):
        for channels in {cell.c_out for cell in before} | {cell.c_in for cell in after}:
            leave, enter = [cell.c_out == channels for cell in before], [cell.c_in == channels for cell in after]
            if not all([*leave, *enter]):
                row = np.zeros(len(layer_of))
                row[layer_of == number], row[layer_of == number + 1] = leave, np.negative(enter, dtype=float)
                structure.append(LinearConstraint(row, 0, 0))
    return structure


def _agrees(space: SearchSpace, pick: Pick) -> bool:
    cells = [layer[number] for layer, number in zip(space.layers, pick, strict=True)]
    return all(before.c_out == after.c_in for before, after in pairwise(cells))


def _within(budgets: Sequence[Budget], count: int) -> Bounds:
    """What a candidate may be: 0 or 1; where it alone is over a peak, 0."""
    allowed = np.ones(count)
    for budget in budgets:
        if budget.peak:
            allowed *= (np.concatenate(budget.costs) <= budget.most) & (budget.fixed <= budget.most)
    return Bounds(0, allowed)


def _loosened(space: SearchSpace, budgets: Sequence[Budget], some: Collection[Budget]) -> Pick | None:
    """The network that exceeds `some` budgets by the least, as shares of each in sum; None if it exceeds the others.

    A variable for each budget says by which share of it a network may exceed it.
    """
    count = sum(map(len, space.layers))
    constraints = []
    for part in _structure(space):
        rows = np.atleast_2d(part.A)
        constraints.append(LinearConstraint(np.pad(rows, ((0, 0), (0, len(budgets)))), part.lb, part.ub))
    for number, budget in enumerate(budgets):
        costs = np.concatenate(budget.costs) / budget.most
        rows = np.diag(costs) if budget.peak else costs[None]
        rows = np.pad(rows, ((0, 0), (0, len(budgets))))
        rows[:, count + number] = -1
        fixed = 0.0 if budget.peak else budget.fixed / budget.most
        constraints.append(LinearConstraint(rows, -np.inf, 1 - fixed))
    least = [max(budget.fixed / budget.most - 1, 0.0) if budget.peak else 0.0 for budget in budgets]
    most = [np.inf if any(budget is one for one in some) else 0.0 for budget in budgets]
    if any(low > high for low, high in zip(least, most, strict=True)):
        return None
    solved = milp(
        np.repeat([0.0, 1.0], [count, len(budgets)]),
        integrality=np.repeat([1, 0], [count, len(budgets)]),
        bounds=Bounds([*np.zeros(count), *least], [*np.ones(count), *most]),
        constraints=constraints,
        options={"mip_rel_gap": 0},
    )
    return None if solved.x is None else _picked(solved.x[:count], space)


def _picked(x: np.ndarray, space: SearchSpace) -> Pick:
    return tuple(int(part.argmax()) for part in np.split(x, np.cumsum([len(layer) for layer in space.layers])[:-1]))
