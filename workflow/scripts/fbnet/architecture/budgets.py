"""The budgets of a search, from the options of a script to what the integer program has."""

import argparse
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from fbnet.architecture.budget import UNITS, in_us, read_amount
from fbnet.architecture.program import Budget
from fbnet.latency import LatencyTable, read_header, read_table
from fbnet.network import int8_bytes, peak_values, size
from fbnet.space import Cell, SearchSpace, with_heads

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}  # of a value, by a target's dtype


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a program the options that say within what it chooses."""
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV) of the target")
    parser.add_argument("--latency-budget", help="most predicted latency: 8ms, 8500us, fbnet_c, 0.8 * fbnet_c; default: any")
    parser.add_argument(
        "--budget",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME AMOUNT", "TABLE"),
        help="and another one: macs 50M, params 1M, memory 500kB, size 1MB (of a file in int8), or phone 8ms and its table",
    )


def read_budgets(arguments: argparse.Namespace, table: LatencyTable, classes: int) -> list[Budget]:
    """The budgets that a program was given, that of the target's latency first. Raises InputError."""
    budgets = []
    if arguments.latency_budget:
        budgets.append(latency_budget(table, in_us(arguments.latency_budget, table)))
    for name, amount, *other in arguments.budget:
        key = f"budgets.{name}"
        if name in UNITS:
            budgets.append(budget_of(key, read_amount(name, amount), table.space, classes, read_header(arguments.table)))
        else:
            theirs = read_table(Path(other[0]), table.space, classes)
            budgets.append(latency_budget(theirs, in_us(amount, theirs, key), key))
    return budgets


def latency_budget(table: LatencyTable, most_us: float, name: str = "latency_budget") -> Budget:
    """At most so much of a table's latency, in µs."""
    return Budget(name, most_us, [np.asarray(row) for row in table.costs_us], sum(table.fixed_us))


def budget_of(key: str, most: float, space: SearchSpace, classes: int, header: Mapping[str, str]) -> Budget:
    """At most so much of what `key` names, as `budgets.macs`; memory is of an inference as a table's header tells of it."""
    name = key.removeprefix("budgets.")
    cost, peak = _cost(name, header), name == "memory"
    together = max if peak else operator.add
    fixed = map(cost, space.fixed_cells(classes))
    costs = with_heads(space, [[cost(cell) for cell in layer] for layer in space.layers], list(map(cost, space.heads)), together)
    return Budget(key, most, [np.array(row, dtype=float) for row in costs], float(reduce(together, fixed)), peak)


def costs(space: SearchSpace, ops: Sequence[str], classes: int, header: Mapping[str, str]) -> dict[str, int]:
    """What an architecture costs of each kind of budget, beside latency: MACs, parameters, and bytes."""
    cells = space.network_cells(ops, classes)
    return {name: (max if name == "memory" else sum)(map(_cost(name, header), cells)) for name in UNITS}


def _cost(name: str, header: Mapping[str, str]) -> Callable[[Cell], int]:
    """What a cell costs of a kind of budget."""
    bytes_a_value = BYTES[header.get("dtype", "float32")] * int(header.get("batch", 1))
    return {
        "macs": lambda cell: size([cell])[0],
        "params": lambda cell: size([cell])[1],
        "memory": lambda cell: bytes_a_value * peak_values(cell),
        "size": lambda cell: int8_bytes([cell]),
    }[name]
