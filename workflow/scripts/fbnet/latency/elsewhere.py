"""Networks that are measured elsewhere, to compare a table from there with: handed out as files, taken back as a validation."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from fbnet.errors import InputError
from fbnet.latency.foreign import converted, decoded
from fbnet.latency.table import LatencyTable, parse_header, tsv
from fbnet.latency.target import Target
from fbnet.latency.validation import Measured, draw
from fbnet.space import parse

LEAST = 4  # networks, fewer of which say nothing
_TIMES = ("measured_us", "first_us", "second_us")


def as_files(table: LatencyTable, classes: int, target: Target, count: int, folder: Path) -> str:
    """Random networks as ONNX files in a folder, and as text the validation to be filled in with what they take elsewhere."""
    from fbnet.latency.onnx_engine import OnnxFiles  # onnx need not be there for all else

    drawn = draw(table, count)
    paths = [table.space.network_cells(ops, classes) for ops, _ in drawn]
    folder.mkdir(parents=True, exist_ok=True)
    files = OnnxFiles([cell for path in paths for cell in path], target, folder)
    rows = [
        {"file": files.file(path).name, "ops": " ".join(ops), "drawn": how} for path, (ops, how) in zip(paths, drawn, strict=True)
    ]
    return tsv(rows, ["file", "ops", "drawn", "measured_us"], {"space": table.space.name, "unit": "us"})


def measured_elsewhere(path: Path, table: LatencyTable, header: Mapping[str, str]) -> tuple[list[Measured], dict[str, str]]:
    """The networks of a validation that was made elsewhere, and its header. It is read as a table from elsewhere is (`foreign`).

    `header`: that of the table, which it must not contradict. Raises InputError that names the row or the line of the header.
    """
    what = f"the validation {path}"
    text = decoded(path, what)
    about = parse_header(text)
    for key in ("machine", *(field.name for field in fields(Target))):
        if about.get(key, header.get(key)) != header.get(key, about.get(key)):
            raise InputError(
                f"{what} was measured with {key} {about[key]}, but its table with {header[key]}: bring two of one device"
            )
    _, (columns, *rows) = converted(text, what, "measured")
    if missing := [column for column in ("ops", "drawn", "measured_us") if column not in columns]:
        raise InputError(f"{what} lacks the column {', '.join(missing)}: fill in what validate_latency.py --models writes")
    found = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise InputError(f"{what}: row {number} has not the {len(columns)} columns of the first line")
        cells = dict(zip(columns, row, strict=True))
        try:
            ops = parse(cells["ops"], table.space)
        except InputError as error:
            raise InputError(f"{what}, row {number}: {error}") from None
        if not cells["measured_us"]:
            raise InputError(f"{what}, row {number}: measured_us is empty: give what this network takes")
        times = {key: _positive(cells[key], f"{what}, row {number}: {key}") for key in _TIMES if cells.get(key)}
        found.append(Measured(ops, cells["drawn"], **times))
    if len(found) < LEAST:
        raise InputError(f"{what} has {len(found)} networks, but at least {LEAST} are needed to say anything")
    return found, {key: value for key, value in about.items() if key not in ("unit", "result")}


def _positive(value: str, what: str) -> float:
    """A number above 0. Raises InputError."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"{what} is {value!r}, but must be a number above 0")
    return number
