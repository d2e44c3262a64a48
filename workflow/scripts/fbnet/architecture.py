"""Architectures: an operator for each searched layer of a space, and their compact string form."""

import difflib
from dataclasses import dataclass

from fbnet.errors import InputError
from fbnet.operators import CANDIDATES
from fbnet.space import Cell, SearchSpace


@dataclass(frozen=True)
class Architecture:
    """A named choice of operators in a space, for so many classes: all that it takes to build a network."""

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
    """Operators as one line, stages divided by bars, `ir_` left out: `k3_e1 | k3_e6 skip k5_s2`. Raises InputError."""
    names = iter(cell.op.removeprefix("ir_") for cell in space.path(ops))
    return " | ".join(" ".join(next(names) for _ in range(count)) for count in space.stages)


def parse(text: str, space: SearchSpace) -> tuple[str, ...]:
    """The operators that `compact` wrote down; full names and a line without bars will do too.

    Raises InputError that says where the line does not fit the space.
    """
    stages = [stage.split() for stage in text.split("|")]
    known = {name.removeprefix("ir_"): name for name in CANDIDATES}
    ops = []
    for number, stage in enumerate(stages, 1):
        for word in stage:
            name = known.get(word.removeprefix("ir_"))
            if name is None:
                near = difflib.get_close_matches(word.removeprefix("ir_"), known, 1)
                hint = f" (did you mean {near[0]}?)" if near else f"; known are {', '.join(known)}"
                raise InputError(f"the architecture names an unknown operator {word!r} for layer {len(ops) + 1}{hint}")
            ops.append(name)
        if len(stages) > 1 and number <= len(space.stages) and len(stage) != space.stages[number - 1]:
            raise InputError(
                f"stage {number} of space {space.name} has {space.stages[number - 1]} layers, "
                f"but the architecture has {len(stage)} operators there: {' '.join(stage)!r}"
            )
    if len(stages) > 1 and len(stages) != len(space.stages):
        raise InputError(f"space {space.name} has {len(space.stages)} stages, but the architecture has {len(stages)}")
    space.path(ops)
    return tuple(ops)
