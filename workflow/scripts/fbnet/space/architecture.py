"""Architectures: a choice for each searched layer of a space; their compact string form, and tables of them."""

import csv
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fbnet.errors import InputError
from fbnet.space.cell import Cell
from fbnet.space.operators import CANDIDATES
from fbnet.space.search_space import SearchSpace


@dataclass(frozen=True)
class Architecture:
    """A named network of a space, for so many classes: all that it takes to build it.

    `ops` has for each layer the operator, and where they are a choice the channels: `ir_k3_e6_c24`.
    """

    name: str
    space: SearchSpace
    ops: tuple[str, ...]
    classes: int

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The network's cells, in order: stem, one a layer, head, classifier."""
        return self.space.network_cells(self.ops, self.classes)

    def __str__(self) -> str:
        return compact(self.ops, self.space)


def compact(ops, space: SearchSpace) -> str:
    """Choices as one line, stages divided by bars, `ir_` left out: `k3_e1 | k3_e6 skip k5_s2`. Raises InputError."""
    names = iter(cell.choice.removeprefix("ir_") for cell in space.path(ops))
    return " | ".join(" ".join(next(names) for _ in range(count)) for count in space.stages)


def parse(text: str, space: SearchSpace) -> tuple[str, ...]:
    """The choices that `compact` wrote down; full names and a line without bars will do too.

    Raises InputError that says where the line does not fit the space.
    """
    stages = [stage.split() for stage in text.split("|")]
    known = {name.removeprefix("ir_"): name for name in CANDIDATES}
    ops = []
    for number, stage in enumerate(stages, 1):
        for word in stage:
            op, channels = re.fullmatch(r"(.*?)(_c\d+)?", word.removeprefix("ir_"), re.DOTALL).groups("")
            name = known.get(op)
            if name is None:
                near = difflib.get_close_matches(op, known, 1)
                hint = f" (did you mean {near[0]}?)" if near else f"; known are {', '.join(known)}"
                raise InputError(f"the architecture names an unknown operator {word!r} for layer {len(ops) + 1}{hint}")
            ops.append(name + channels)
        if len(stages) > 1 and number <= len(space.stages) and len(stage) != space.stages[number - 1]:
            raise InputError(
                f"stage {number} of space {space.name} has {space.stages[number - 1]} layers, "
                f"but the architecture has {len(stage)} operators there: {' '.join(stage)!r}"
            )
    if len(stages) > 1 and len(stages) != len(space.stages):
        raise InputError(f"space {space.name} has {len(space.stages)} stages, but the architecture has {len(stages)}")
    space.path(ops)
    return tuple(ops)


def read_architectures(path: Path, space: SearchSpace, columns: Sequence[str] = ()) -> list[dict]:
    """The rows of a table of architectures (TSV) by column: `name`, `ops` as a tuple, and all else as text.

    Raises InputError that names the file, for a table without these `columns`, without rows, or of another space.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the architectures {path} cannot be read as TSV: {' '.join(str(error).split())}") from None
    if not rows:
        raise InputError(f"{path} has no architectures: it needs a line for each, with name and ops")
    missing = [column for column in ("name", "ops", *columns) if column not in rows[0]]
    if missing:
        raise InputError(f"the architectures {path} lack the column {', '.join(missing)}")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"the architectures {path}: row {number} has not the columns of the first line")
        try:
            row["ops"] = parse(row["ops"], space)
        except InputError as error:
            raise InputError(f"the architectures {path}, row {number}: {error}") from None
    return rows
