"""TSV files with checked columns."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from fbnet.errors import InputError


def number(text: str) -> float:
    """A finite number, 0 or more."""
    return _within(text, 0, math.inf, "a number, 0 or more")


def signed(text: str) -> float:
    """A finite number, also below 0."""
    return _within(text, -math.inf, math.inf, "a number")


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _within(text, 0, math.inf, "a number above 0")
    if value == 0:
        raise ValueError("a number above 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _within(text, 0, 1, "a number from 0 to 1")


def correlation(text: str) -> float:
    """A number from -1 to 1."""
    return _within(text, -1, 1, "a number from -1 to 1")


def whole(text: str) -> int:
    """A whole number, 0 or more; also as tables with gaps have it: 3.0."""
    value = _within(text, 0, math.inf, "a whole number, 0 or more")
    if value != int(value):
        raise ValueError("a whole number, 0 or more")
    return int(value)


def count(text: str) -> int:
    """A whole number, 1 or more."""
    try:
        value = whole(text)
    except ValueError:
        value = 0
    if value == 0:
        raise ValueError("a whole number, 1 or more")
    return value


def word(text: str) -> str:
    """A text that is not empty."""
    if not text.strip():
        raise ValueError("a text")
    return text


def truth(text: str) -> bool:
    """True or False."""
    return one_of("True", "False")(text) == "True"


def one_of(*names: str) -> Callable[[str], str]:
    """A reader of one of these words."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(" or ".join(names))
        return text

    return read


def if_any(read: Callable) -> Callable:
    """A reader of what may be missing: None for an empty field."""
    return lambda text: read(text) if text.strip() else None


def if_finite(read: Callable) -> Callable:
    """A reader of what may not be known: None for inf."""
    return lambda text: None if text.strip() == "inf" else read(text)


def _within(text: str, least: float, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most or math.isinf(value):
        raise ValueError(what)
    return value


def read_tsv(path: Path, columns: Mapping[str, Callable]) -> list[dict]:
    """The rows of a TSV file, each column read by its function (which may raise ValueError that says what it must be).

    Raises InputError that names file, row, column and value.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as TSV: {' '.join(str(error).split())}") from None
    known = rows[0].keys() if rows else text.partition("\n")[0].rstrip("\r").split("\t")
    if missing := [column for column in columns if column not in known]:
        raise InputError(f"{path} lacks the column {', '.join(missing)}; it needs {', '.join(columns)}")
    for at, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"{path}, row {at}: it has not as many fields as the first line has columns")
        for column, read in columns.items():
            try:
                row[column] = read(row[column])
            except ValueError as error:
                raise InputError(f"{path}, row {at}: {column} is {row[column]!r}, but must be {error}") from None
    return [{column: row[column] for column in columns} for row in rows]
