"""Latency tables: what each cell of a search space costs, an entry each, in µs."""

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fbnet.errors import InputError
from fbnet.space import CANDIDATES, OPERATORS, Cell, SearchSpace, extreme, with_heads

KEY = ["layer", "op", "c_in", "c_out", "height", "width", "stride", "expansion"]
LITTLE_CONTRAST = 1.5  # ratio of the slowest to the fastest operator of a layer, below which a search has little to choose
LEAST_NETWORK_US = 50.0  # less than any network takes that somebody would search for
COLUMNS = [*KEY, "latency_us", "iqr_us", "runs"]


@dataclass(frozen=True)
class LatencyTable:
    """The latencies of a space in µs: `operators_us[l][i]` of candidate i in searched layer l, `fixed_us` of stem and head.

    `fixed_us` has three: the stem, the head's convolution, the classifier. Where the last stage lists channels, `heads_us` has
    the head's convolution for each of the space's heads, and `fixed_us` the others.
    """

    space: SearchSpace
    fixed_us: tuple[float, ...]
    operators_us: tuple[tuple[float, ...], ...]
    heads_us: tuple[float, ...] = ()

    @property
    def costs_us(self) -> Sequence[Sequence[float]]:
        """What the candidates add to a network, with `fixed_us`: where heads differ, those of the last layer with their head."""
        return with_heads(self.space, self.operators_us, self.heads_us)

    @property
    def least_us(self) -> float:
        """What the fastest network of the space takes."""
        return self._extreme_us(min)

    @property
    def most_us(self) -> float:
        """What the slowest network of the space takes."""
        return self._extreme_us(max)

    def _extreme_us(self, which: Callable) -> float:
        numbers = extreme(self.space, self.costs_us, which)
        return sum(self.fixed_us) + sum(row[number] for row, number in zip(self.costs_us, numbers, strict=True))

    def cells_us(self, ops) -> list[float]:
        """The latency of each cell of an architecture's network, in order: stem, one a layer, head, classifier."""
        numbers = self.space.numbers(ops)
        stem, *heads, classifier = self.fixed_us
        if self.heads_us:
            channels = self.space.layers[-1][numbers[-1]].c_out
            heads = [us for us, cell in zip(self.heads_us, self.space.heads, strict=True) if cell.c_in == channels]
        return [stem, *(row[number] for row, number in zip(self.operators_us, numbers, strict=True)), *heads, classifier]

    def predict(self, ops) -> float:
        """The latency of an architecture in µs: the sum of its cells."""
        return sum(self.cells_us(ops))


def read_table(path: Path, space: SearchSpace, classes: int, expected: Mapping[str, str] | None = None) -> LatencyTable:
    """Read a table, as `parse_table` does, from its file."""
    return parse_table(_text(path), path, space, classes, expected)


def parse_table(
    text: str, path: Path, space: SearchSpace, classes: int, expected: Mapping[str, str] | None = None
) -> LatencyTable:
    """Read a table by key, never by position; entries of other spaces are left aside. `path` is where its text is from.

    The column expansion may be absent where the operators' names say it. Raises InputError that names file and entry for
    one that is missing, doubled, negative or no finite number, or the setting if the header tells of another norm than the
    space's or of other settings than those `expected`.
    """
    header = parse_header(text)
    for key, value in {"norm": space.stem.norm, **(expected or {})}.items():
        if header.get(key, value) != value:
            whose = f"space {space.name}" if key == "norm" else "its target"
            raise InputError(
                f"the latency table {path} was made for {key} {header[key]}, but {whose} has {key} {value}: measure it again, "
                f"or change the setting"
            )
    latencies: dict[tuple, float] = {}
    for row in _rows(text, path):
        key = tuple(row[column] for column in KEY)
        if key in latencies:
            raise InputError(f"{_entry(path, row)}: the entry is there twice; keep one row")
        latencies[key] = float(row["latency_us"])

    def latency(cell: Cell) -> float:
        key = tuple(str(getattr(cell, column)) for column in KEY)
        if key not in latencies:
            row = dict(zip(KEY, key, strict=True))
            raise InputError(
                f"the latency table {path} has no row for layer {cell.layer}, {cell.op} ({_shape(row)}) "
                f"of space {space.name} with {classes} classes: measure it again, or add the row"
            )
        return latencies[key]

    return LatencyTable(
        space,
        tuple(map(latency, space.fixed_cells(classes))),
        tuple(tuple(map(latency, layer)) for layer in space.layers),
        tuple(map(latency, space.heads)) if len(space.heads) > 1 else (),
    )


def grid(space: SearchSpace, values: Sequence[Sequence[float]]) -> tuple[list[str], list[str], list[list[float]]]:
    """Values of all candidates as lines and columns: the lines' names, the operators, and the values, nan where there is none.

    A line is a layer, or where its candidates differ in channels, what it has of c_in and c_out: `5 16→24`.
    """
    ops = list(dict.fromkeys(cell.op for layer in space.layers for cell in layer))
    lines: dict[str, dict[str, float]] = {}
    for layer, row in zip(space.layers, values, strict=True):
        several = len({(cell.c_in, cell.c_out) for cell in layer}) > 1
        for cell, value in zip(layer, row, strict=True):
            name = f"{cell.layer} {cell.c_in}→{cell.c_out}" if several else cell.layer
            lines.setdefault(name, {})[cell.op] = value
    return list(lines), ops, [[line.get(op, math.nan) for op in ops] for line in lines.values()]


def ends_in_words(table: LatencyTable, unit: str = "", form: str = ".1f") -> str:
    """What stem, head and classifier take: `stem 10.0, head 20.0, classifier 5.0`; of several heads `5.0 to 20.0`."""
    stem, *head, classifier = table.fixed_us
    heads = sorted({min(table.heads_us or head), max(table.heads_us or head)})
    between = " to ".join(f"{us:{form}}" for us in heads)
    return f"stem {stem:{form}}{unit}, head {between}{unit}, classifier {classifier:{form}}{unit}"


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table as text by column, `expansion` filled in, `latency_us` a number of 0 or more. Raises InputError."""
    return _rows(_text(path), path)


def _rows(text: str, path: Path) -> list[dict[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except csv.Error as error:  # a field of more than 131072 characters, or a NUL
        raise InputError(f"the latency table {path} cannot be read as TSV: {error}") from None
    columns = lines[0].split("\t") if lines else []
    missing = [column for column in [*KEY[:-1], "latency_us"] if column not in columns]
    if missing:
        raise InputError(f"the latency table {path} lacks the column {', '.join(missing)}; it needs {', '.join(COLUMNS[:-2])}")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"the latency table {path}: row {number} has not the {len(columns)} columns of the first line")
        if "expansion" not in columns:
            row["expansion"] = str(OPERATORS[row["op"]].expansion) if row["op"] in OPERATORS else ""
        try:
            latency_us = float(row["latency_us"])
        except ValueError:
            latency_us = math.nan
        if not math.isfinite(latency_us) or latency_us < 0:
            raise InputError(f"{_entry(path, row)}: latency_us is {row['latency_us']!r}, but must be a number of µs, 0 or more")
    return rows


def _text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the latency table {path} cannot be read as TSV: {' '.join(str(error).split())}") from None


def _entry(path: Path, row: dict[str, str]) -> str:
    return f"the latency table {path}, layer {row['layer']}, {row['op']} ({_shape(row)})"


def _shape(row: dict[str, str]) -> str:
    named = OPERATORS.get(row["op"], OPERATORS["skip"]).expansion is not None
    expansion = "" if named else f", expansion {row['expansion']}"
    return f"{row['c_in']}→{row['c_out']} channels, {row['height']}×{row['width']}, stride {row['stride']}{expansion}"


def read_header(path: Path) -> dict[str, str]:
    """The `# key: value` lines at the top of a table: how and where it was measured. Raises InputError."""
    return parse_header(_text(path))


def parse_header(text: str) -> dict[str, str]:
    """The `# key: value` lines at the top of a table's text."""
    header = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        key, _, value = line[1:].partition(":")
        header[key.strip()] = value.strip()
    return header


def check_error(table: Path, validation: Path, largest: float) -> None:
    """Raises InputError if a table's validation found a larger mean error than this, as a share."""
    error = float(read_header(validation)["mean_error"])
    if error > largest:
        raise InputError(
            f"the latency table {table} predicts networks with a mean error of {error:.1%}, more than validation.error allows "
            f"({largest:.1%}), and validation.strict is set: measure again on a quiet machine, or allow more"
        )


def contrast(path: Path) -> float | None:
    """How far the operators of a layer differ: the slowest's latency over the fastest's, `skip` aside, the median over layers.

    None for a table of layers without a choice. Raises InputError.
    """
    layers: dict[tuple[str, ...], list[float]] = {}
    for row in read_rows(path):
        if row["op"] in OPERATORS and row["op"] != "skip" and row["layer"] not in ("stem", "head"):
            layers.setdefault(tuple(row[key] for key in KEY if key not in ("op", "expansion")), []).append(
                float(row["latency_us"])
            )
    ratios = [max(layer) / min(layer) for layer in layers.values() if len(layer) > 1 and min(layer) > 0]
    return statistics.median(ratios) if ratios else None


def hardly_differ(path: Path) -> str | None:
    """A sentence with what to change if the operators of a layer hardly differ; None if they do. Raises InputError."""
    ratio = contrast(path)
    if ratio is None or ratio >= LITTLE_CONTRAST:
        return None
    return (
        f"the operators of a layer hardly differ: the slowest takes {ratio:.2f} × the time of the fastest (skip aside, median "
        f"over layers). This is overhead, not arithmetic: latency counts layers and tells nothing of kernels and expansions. "
        f"Measure a larger batch, another runtime (engine: onnxruntime), or a space of larger images."
    )


def too_fast(path: Path) -> str | None:
    """A sentence that doubts the unit of a table by which networks take next to nothing; None for others. Raises InputError."""
    slowest: dict[str, float] = {}
    for row in read_rows(path):
        place = row["layer"] if row["op"] in CANDIDATES else f"{row['layer']} {row['op']}"  # head and classifier add up
        slowest[place] = max(slowest.get(place, 0.0), float(row["latency_us"]))
    if (most_us := sum(slowest.values())) >= LEAST_NETWORK_US:
        return None
    question = "is it in another unit? Then say so in a line such as # unit: ms"
    return f"no network takes more than {most_us:.3g} µs by this table: {question}"


def device_of(header: Mapping[str, str]) -> str:
    """In words, the device that a table's or a validation's header tells of."""
    if header.get("engine") == "analytic":
        return f"no device: {header['cost']} counted"
    machine = header.get("machine", "a device that the table does not name")
    settings = [header[key] for key in ("engine", "dtype", "mode", "memory_format") if key in header]
    settings += [f"{key}={header[key]}" for key in ("threads", "batch", "allocator") if key in header]
    return ", ".join([machine, *settings])


def tsv(rows: Iterable[Mapping], columns: Sequence[str], header: Mapping[str, str]) -> str:
    """A table as text: `# key: value` lines, then these columns as TSV."""
    file = io.StringIO()
    file.writelines(f"# {key}: {value}\n" for key, value in header.items())
    writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: f"{value:.{3 if key.endswith('_us') else 4}f}" if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
    return file.getvalue()


def drawing(table: LatencyTable) -> str:
    """A table as text: a line a layer, a column a candidate, in µs; · where a layer has no such candidate."""
    names, ops, latencies = grid(table.space, table.operators_us)
    short = [op.removeprefix("ir_") for op in ops]
    width, left = max(8, *(len(name) + 1 for name in short)), max(5, *map(len, names))
    lines = [f"{'layer':<{left}}" + "".join(f"{name:>{width}}" for name in short)]
    for name, row in zip(names, latencies, strict=True):
        cells = [f"{'·':>{width}}" if math.isnan(us) else f"{us:>{width}.1f}" for us in row]
        lines.append(f"{name:>{left}}" + "".join(cells))
    return "\n".join([*lines, f"{ends_in_words(table)}; all in µs"])
