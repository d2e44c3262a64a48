"""Tables that come from elsewhere, brought into our form: other encodings, separators, units, and the reference's."""

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from fbnet.errors import InputError
from fbnet.latency.table import COLUMNS, KEY, tsv
from fbnet.latency.target import UNITS_US
from fbnet.space import OPERATORS, SearchSpace

ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # by how a file begins
SEPARATORS = "\t;,"


def as_ours(path: Path, space: SearchSpace, classes: int) -> str:
    """The text of a table in the form of our own; as it stands, where it has that already.

    Read are UTF-8 and, with a byte order mark, UTF-16; tabs, semicolons and commas; 3.0 for 3; by a line `# unit: ms` or a column
    `latency_ms` other units than µs. A table that begins with nothing but names of operators is read as the reference's
    lookup_table.txt: a line for each layer of the space, in µs. Raises InputError for a file that cannot be decoded, a unit that
    is none, and lines of the reference's that do not fit the space; all else is for whoever reads the text.
    """
    what = f"the latency table {path}"
    text = decoded(path, what)
    lines = _lines(text)
    if lines and set(lines[0].split()) <= OPERATORS.keys():
        return _from_reference(path, [line.split() for line in lines], space, classes)
    separator, found = converted(text, what, "latency")
    if separator == "\t" and found == [line.split("\t") for line in lines]:
        return text
    kept = [line for line in _comments(text) if not _says_unit(line)]
    return "".join(f"{line}\n" for line in [*kept, *map("\t".join, found)])


def converted(text: str, what: str, quantity: str) -> tuple[str, list[list[str]]]:
    """The separator of a text, and its columns and rows with numbers as ours and times in µs.

    `what` is how a sentence calls the file, `quantity` what stands before the unit in the column that may say it. Raises
    InputError.
    """
    lines = _lines(text)
    separator = max(SEPARATORS, key=lines[0].count) if lines else "\t"
    try:
        rows = [[value.strip() for value in row] for row in csv.reader(lines, delimiter=separator)]
    except csv.Error as error:
        raise InputError(f"{what} cannot be read: {error}") from None
    columns, unit = _unit(what, _comments(text), rows[0] if rows else [], quantity)
    return separator, [
        columns,
        *([_value(*cell, unit) for cell in zip(columns, row, strict=False)] + row[len(columns) :] for row in rows[1:]),
    ]


def template(space: SearchSpace, classes: int) -> str:
    """A table of a space without latencies, to be filled in."""
    rows = [{key: getattr(cell, key) for key in KEY} | {"latency_us": ""} for cell in space.cells(classes)]
    return tsv(rows, [*KEY, "latency_us"], {"space": space.name, "norm": space.stem.norm, "unit": "us"})


def decoded(path: Path, what: str) -> str:
    """The text of a file that a sentence calls `what`. Raises InputError."""
    try:
        data = Path(path).read_bytes()
        encoding = next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), "utf-8")
        return data.decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        fix = "" if isinstance(error, OSError) else "; save it as UTF-8"
        raise InputError(f"{what} cannot be read: {' '.join(str(error).split())}{fix}") from None


def _comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _says_unit(comment: str) -> bool:
    return comment[1:].partition(":")[0].strip() == "unit"


def _unit(what: str, comments: Sequence[str], columns: Sequence[str], quantity: str) -> tuple[list[str], str]:
    """The columns, with that of a quantity as ours is called, and the unit in which that is. Raises InputError."""
    said = {comment.partition(":")[2].strip() for comment in comments if _says_unit(comment)}
    named = {name.removeprefix(f"{quantity}_") for name in columns if name.startswith(f"{quantity}_")} & set(UNITS_US)
    units = said or named or {"us"}
    if len(units) > 1 or len(named) > 1 or (said and not named <= {"us", *said}):
        raise InputError(f"{what} has latencies in {' and in '.join(sorted(said | named))}: say one unit")
    [unit] = units
    if unit not in UNITS_US:
        raise InputError(f"{what} says `# unit: {unit}`, but must say one of {', '.join(UNITS_US)}")
    return [f"{quantity}_us" if name.removeprefix(f"{quantity}_") in named else name for name in columns], unit


def _value(column: str, value: str, unit: str) -> str:
    """A value as our tables have it; what is no number stays as it is."""
    if column in KEY[2:] and re.fullmatch(r"\d+\.0+", value):
        return value.partition(".")[0]
    if not column.endswith("_us"):
        return value
    number = value.replace(",", ".") if re.fullmatch(r"\d+,\d+", value) else value  # a decimal comma
    if UNITS_US[unit] != 1:
        try:
            return f"{float(number) * UNITS_US[unit]:.6g}"
        except ValueError:
            return value
    return number


def _from_reference(path: Path, lines: Sequence[Sequence[str]], space: SearchSpace, classes: int) -> str:
    """Our form of a table whose first line names operators, and each other one has their latencies in a layer. Raises InputError.

    Stem and head are not in it: they count as nothing, and the header says so.
    """
    if space.elastic:
        raise InputError(
            f"the latency table {path} has a line for each layer, which tells of one number of channels, but space {space.name} "
            f"lists several: measure it, or fill in a template (profile_latency.py --template)"
        )
    ops, *layers = lines
    if len(layers) != len(space.layers):
        raise InputError(f"the latency table {path} has {len(layers)} layers, but space {space.name} has {len(space.layers)}")
    rows = [{key: getattr(cell, key) for key in KEY} | {"latency_us": 0.0} for cell in space.fixed_cells(classes)]
    for layer, values in zip(space.layers, layers, strict=True):
        if len(values) != len(ops):
            raise InputError(
                f"the latency table {path} has {len(values)} latencies in layer {layer[0].layer}, but names {len(ops)} operators"
            )
        latencies = dict(zip(ops, values, strict=True))
        absent = [cell.op for cell in layer if cell.op not in latencies]
        if absent:
            raise InputError(f"the latency table {path} has no operator {absent[0]}, which layer {layer[0].layer} may choose")
        rows += [{key: getattr(cell, key) for key in KEY} | {"latency_us": latencies[cell.op]} for cell in layer]
    return tsv(rows, COLUMNS[:-2], {"space": space.name, "missing": "stem, head, classifier"})
