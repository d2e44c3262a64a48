"""Budgets as people write them: of latency `8ms`, `8500us`, `fbnet_c`, `0.8 * fbnet_c`, `0.5 * k3_e6`; others `1M`, `500kB`."""

import math
import re

from fbnet.errors import InputError
from fbnet.latency import UNITS_US, LatencyTable
from fbnet.space import OPERATORS, SearchSpace, in_space, parse, published

ALLOWED = (
    "a latency with its unit (8ms, 8500us), a published network (fbnet_c), an operator (k3_e6: the network that has it in every "
    "layer), or a multiple of one (0.8 * fbnet_c)"
)
# What a network may be limited in beside its latency on targets, and the units in which it is written.
NUMBERS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "KiB": 2.0**10, "MiB": 2.0**20}
MORE = 1.1  # times a budget, where it is asked what more of it would buy
UNITS = {"macs": NUMBERS, "params": NUMBERS, "memory": BYTES, "size": BYTES}


def read_amount(name: str, text: str) -> float:
    """A budget of one of UNITS as a number. Raises InputError."""
    units = UNITS[name]
    match = re.fullmatch(rf"\s*(\d+\.?\d*|\.\d+)\s*({'|'.join(units)})\s*", str(text))
    amount = float(match[1]) * units[match[2]] if match else 0.0
    if not 0 < amount < math.inf:
        example = "1.5M or 800k" if units is NUMBERS else "500kB or 1.5MB"
        raise InputError(f"budgets.{name} is {text!r}, but must be a number above 0 with its unit, as {example}")
    return amount


def spaced(name: str, ends: list, points) -> list[str]:
    """So many budgets of a kind (of UNITS, or a target's name), evenly from the first to the last. Raises InputError."""
    units = UNITS.get(name, UNITS_US)
    found = [re.fullmatch(rf"\s*(\d+\.?\d*|\.\d+)\s*({'|'.join(units)})\s*", str(end)) for end in ends]
    amounts = [float(match[1]) * units[match[2]] if match else 0.0 for match in found]
    if not 0 < amounts[0] < amounts[1] < math.inf:
        raise InputError(f"{name} is {ends!r}, but must be two amounts with their units, the less one first")
    points = int(points) if isinstance(points, str) and points.isdecimal() else points  # of --config all is text
    if isinstance(points, bool) or not isinstance(points, int) or not 2 <= points <= 100:
        raise InputError(f"points is {points!r}, but must be a whole number from 2 to 100")
    least, most = amounts
    scale, unit = units[found[0][2]], found[0][2]
    return [f"{(least + (most - least) * number / (points - 1)) / scale:.4g}{unit}" for number in range(points)]


def in_words(name: str, amount: float) -> str:
    """An amount, of what has this key in the configuration, as text that can be set there, rounded up so that it is kept."""
    units = UNITS.get(name.removeprefix("budgets."), {"µs": 1.0, "ms": 1e3, "s": 1e6})
    fitting = [(scale, unit) for unit, scale in units.items() if scale <= max(amount, 1.0) and "i" not in unit]
    scale, unit = max(fitting)
    digits = 10.0 ** (3 - math.floor(math.log10(max(amount / scale, 1e-9))))
    return f"{math.ceil(amount / scale * digits - 1e-9) / digits:g} {unit}".strip()


def read(text: str, space: SearchSpace, key: str = "latency_budget") -> tuple[float, tuple[str, ...] | None]:
    """A budget as (factor, None) of 1 µs, or (factor, operators) of the latency of a network in this space.

    That is a published one, or the one with the same operator in every layer. `key` is where it stands in the configuration.
    Raises InputError for text that is none of these.
    """
    match = re.fullmatch(rf"\s*(?:(\d+\.?\d*|\.\d+)\s*({'|'.join(UNITS_US)})|(?:(\d+\.?\d*|\.\d+)\s*\*\s*)?([a-z]\w*))\s*", text)
    if not match:
        raise InputError(f"{key} is {text!r}, but must be {ALLOWED}")
    number, unit, multiple, name = match.groups()
    factor = float(number or multiple or 1) * UNITS_US.get(unit, 1.0)
    if not 0 < factor < math.inf:
        raise InputError(f"{key} is {text!r}, but must be more than nothing")
    if not name:
        return factor, None
    try:
        if {name, f"ir_{name}"} & OPERATORS.keys():
            return factor, parse(" ".join([name] * len(space.layers)), space)
        if name not in published():
            operators = ", ".join(dict.fromkeys(cell.op.removeprefix("ir_") for layer in space.layers for cell in layer))
            networks = ", ".join(published())
            raise InputError(f"{name} is neither an operator ({operators}) nor a published network ({networks})")
        return factor, in_space(name, space)
    except InputError as error:
        raise InputError(f"{key} is {text!r}, but {error}") from None


def in_us(text: str, table: LatencyTable, key: str = "latency_budget") -> float:
    """A budget in µs, by the table of its target. Raises InputError, also where no network of the space is that fast."""
    factor, ops = read(text, table.space, key)
    budget_us = factor * table.predict(ops) if ops else factor
    if budget_us < table.least_us:
        raise InputError(
            f"{key} is {text!r}, which is {budget_us:.0f} µs, but by the latency table the fastest network of space "
            f"{table.space.name} takes {table.least_us:.0f} µs: allow at least that"
        )
    return budget_us
