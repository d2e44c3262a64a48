"""Latency tables: what each cell of a search space costs, in µs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fbnet.errors import InputError
from fbnet.operators import OPERATORS
from fbnet.space import Cell, SearchSpace

KEY = ["layer", "op", "c_in", "c_out", "height", "width", "stride", "expansion"]
COLUMNS = [*KEY, "latency_us", "iqr_us", "runs"]


@dataclass(frozen=True)
class LatencyTable:
    """The latencies of a space in µs: `operators_us[l][i]` of candidate i in searched layer l, `fixed_us` of stem and head.

    `fixed_us` has three: the stem, the head's convolution, the classifier.
    """

    space: SearchSpace
    fixed_us: tuple[float, ...]
    operators_us: tuple[tuple[float, ...], ...]

    @property
    def least_us(self) -> float:
        """What the fastest network of the space takes."""
        return sum(self.fixed_us) + sum(map(min, self.operators_us))

    @property
    def most_us(self) -> float:
        """What the slowest network of the space takes."""
        return sum(self.fixed_us) + sum(map(max, self.operators_us))

    def cells_us(self, ops) -> list[float]:
        """The latency of each cell of an architecture's network, in order: stem, one a layer, head, classifier."""
        stem, *head = self.fixed_us
        layers = zip(self.space.path(ops), self.space.layers, self.operators_us, strict=True)
        return [stem, *(row[layer.index(cell)] for cell, layer, row in layers), *head]

    def predict(self, ops) -> float:
        """The latency of an architecture in µs: the sum of its cells."""
        return sum(self.cells_us(ops))


def read_table(path: Path, space: SearchSpace, classes: int) -> LatencyTable:
    """Read a table by key, never by position; rows of other cells are left aside.

    The column expansion may be absent where the operators' names say it. Raises InputError that names file and cell for one
    that is missing, doubled, negative or no finite number, or if the header tells of another norm than the space's.
    """
    try:
        frame = pd.read_csv(path, sep="\t", comment="#", dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"the latency table {path} cannot be read as TSV: {' '.join(str(error).split())}") from None
    missing = [column for column in [*KEY[:-1], "latency_us"] if column not in frame]
    if missing:
        raise InputError(f"the latency table {path} lacks the column {', '.join(missing)}; it needs {', '.join(COLUMNS[:-2])}")
    if "expansion" not in frame:
        frame["expansion"] = [str(OPERATORS[op].expansion) if op in OPERATORS else "" for op in frame["op"]]
    norm = read_header(path).get("norm", space.stem.norm)
    if norm != space.stem.norm:
        raise InputError(
            f"the latency table {path} is of networks with norm {norm}, but space {space.name} has {space.stem.norm}"
        )

    latencies: dict[tuple, float] = {}
    for row in frame[[*KEY, "latency_us"]].itertuples(index=False):
        key = tuple(row[:-1])
        name = f"the latency table {path}, layer {row.layer}, {row.op} ({_shape(row)})"
        try:
            latency_us = float(row.latency_us)
        except ValueError:
            latency_us = float("nan")
        if not np.isfinite(latency_us) or latency_us < 0:
            raise InputError(f"{name}: latency_us is {row.latency_us!r}, but must be a number of µs, 0 or more")
        if key in latencies:
            raise InputError(f"{name}: the cell is there twice; keep one row")
        latencies[key] = latency_us

    def latency(cell: Cell) -> float:
        key = tuple(str(getattr(cell, column)) for column in KEY)
        if key not in latencies:
            raise InputError(
                f"the latency table {path} has no row for layer {cell.layer}, {cell.op} ({_shape(cell)}) "
                f"of space {space.name} with {classes} classes: measure it again, or add the row"
            )
        return latencies[key]

    return LatencyTable(
        space,
        tuple(map(latency, space.fixed_cells(classes))),
        tuple(tuple(map(latency, layer)) for layer in space.layers),
    )


def _shape(cell) -> str:
    expansion = f", expansion {cell.expansion}" if OPERATORS.get(cell.op, OPERATORS["skip"]).expansion is None else ""
    return f"{cell.c_in}→{cell.c_out} channels, {cell.height}×{cell.width}, stride {cell.stride}{expansion}"


def read_header(path: Path) -> dict[str, str]:
    """The `# key: value` lines at the top of a table: how and where it was measured."""
    header = {}
    with open(path) as file:
        for line in file:
            if not line.startswith("#"):
                break
            key, _, value = line[1:].partition(":")
            header[key.strip()] = value.strip()
    return header


def table_text(rows: pd.DataFrame, header: dict[str, str]) -> str:
    """A table as text: `# key: value` lines, then the columns of COLUMNS as TSV."""
    comments = "".join(f"# {key}: {value}\n" for key, value in header.items())
    return comments + rows[COLUMNS].to_csv(sep="\t", index=False, float_format="%.3f", lineterminator="\n")
