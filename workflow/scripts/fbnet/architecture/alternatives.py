"""What else might have been chosen: the runner-up, and what more of each budget would buy."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fbnet.architecture.budget import MORE
from fbnet.architecture.program import Budget, best, binding
from fbnet.architecture.sampling import log_probs
from fbnet.space import SearchSpace


@dataclass(frozen=True)
class Alternative:
    """An architecture and why it is looked at: it is `chosen`, the `runner-up`, or what MORE times a `budget` would allow.

    `binds` says of a budget whether it keeps a better architecture out.
    """

    what: str
    ops: tuple[str, ...]
    budget: Budget | None = None
    binds: bool | None = None


def alternatives(space: SearchSpace, theta, chosen: tuple[str, ...], budgets: Sequence[Budget]) -> list[Alternative]:
    """What is chosen, and by theta what comes after it within the budgets, and what is best with more of each of them."""
    values = log_probs(theta)
    first, *others = itertools.islice(best(space, values, budgets), 2)
    after = [ops for pick in (first, *others) if (ops := space.ops(pick)) != chosen][:1]
    found = [Alternative("chosen", chosen), *(Alternative("runner-up", ops) for ops in after)]
    bound = binding(space, values, budgets, first)
    for budget in budgets:
        loosened = [replace(one, most=MORE * one.most) if one is budget else one for one in budgets]
        found.append(Alternative("more", space.ops(next(best(space, values, loosened))), budget, budget.name in bound))
    return found
