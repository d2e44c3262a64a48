"""Latency budgets as people write them: `8ms`, `8500us`, `fbnet_c`, `0.8 * fbnet_c`, `0.5 * k3_e6`."""

import math
import re

from fbnet.errors import InputError
from fbnet.latency import UNITS_US, LatencyTable
from fbnet.space import OPERATORS, SearchSpace, in_space, parse

ALLOWED = (
    "a latency with its unit (8ms, 8500us), a published network (fbnet_c), an operator (k3_e6: the network that has it in every "
    "layer), or a multiple of one (0.8 * fbnet_c)"
)


def read(text: str, space: SearchSpace) -> tuple[float, tuple[str, ...] | None]:
    """A budget as (factor, None) of 1 µs, or (factor, operators) of the latency of a network in this space.

    That is a published one, or the one with the same operator in every layer. Raises InputError for text that is none of these.
    """
    match = re.fullmatch(rf"\s*(?:(\d+\.?\d*|\.\d+)\s*({'|'.join(UNITS_US)})|(?:(\d+\.?\d*|\.\d+)\s*\*\s*)?([a-z]\w*))\s*", text)
    if not match:
        raise InputError(f"latency_budget is {text!r}, but must be {ALLOWED}")
    number, unit, multiple, name = match.groups()
    factor = float(number or multiple or 1) * UNITS_US.get(unit, 1.0)
    if not 0 < factor < math.inf:
        raise InputError(f"latency_budget is {text!r}, but must be more than nothing")
    if not name:
        return factor, None
    try:
        if {name, f"ir_{name}"} & OPERATORS.keys():
            return factor, parse(" ".join([name] * len(space.layers)), space)
        return factor, in_space(name, space)
    except InputError as error:
        raise InputError(f"latency_budget is {text!r}, but {error}") from None


def in_us(text: str, table: LatencyTable) -> float:
    """A budget in µs, by the table of its target. Raises InputError, also where no network of the space is that fast."""
    factor, ops = read(text, table.space)
    budget_us = factor * table.predict(ops) if ops else factor
    if budget_us < table.least_us:
        raise InputError(
            f"latency_budget is {text!r}, which is {budget_us:.0f} µs, but by the latency table the fastest network of space "
            f"{table.space.name} takes {table.least_us:.0f} µs: allow at least that"
        )
    return budget_us
