"""Figures of a machine in a folder: figures.tsv, a row each, whole at any time, and page.md, which says what held.

They are had in parts, each of which may take so many minutes.
"""

import csv
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from fbnet.runtime import log, write_text

HELD, FAILED, LEFT_OUT = "held", "did not hold", "left out"
PARTS = ("tests", "steps", "search")
COLUMNS = ("part", "what", "batch", "value", "unit", "n", "held", "note", "code", "machine", "date")
SHOWN = COLUMNS[1:8]
COMPLETE = "all of it"  # a row of this name says whether a part is
EACH = "epoch "  # rows whose names begin with this are too many for the page


class Figures:
    """Rows of text by COLUMNS. `code` has a hash for each part, `about` is the machine: what was had for both is had.

    A row may say that an expectation HELD or FAILED, or that something was LEFT_OUT and, in its note, why.
    """

    def __init__(self, folder: Path, code: Mapping[str, str], about: Mapping[str, str]):
        self.folder, self.code, self.about = folder, code, about
        self.path = folder / "figures.tsv"
        self.rows: list[dict[str, str]] = []
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file, delimiter="\t"))

    def of(self, part: str) -> list[dict[str, str]]:
        """The rows of a part for this code and machine."""
        now = part, self.code[part], self.about["machine"]
        return [row for row in self.rows if (row["part"], row["code"], row["machine"]) == now]

    def has(self, part: str, name: str, batch: int | str = "") -> bool:
        """Whether there is a row with this name, or with one that goes on from it after a colon."""
        return any(row["what"].split(": ")[0] == name and row["batch"] == str(batch) for row in self.of(part))

    def value(self, part: str, what: str, batch: int | str = "") -> float | None:
        """A number that was had."""
        found = [row["value"] for row in self.of(part) if row["what"] == what and row["batch"] == str(batch)]
        return float(found[0]) if found and found[0] else None

    def add(self, part: str, rows: Iterable[Mapping]) -> None:
        """Add rows, each in place of one of the same name and batch, and write both files."""
        now = {"part": part, "code": self.code[part], "machine": self.about["machine"]}
        kept = self.rows
        for row in rows:
            new = dict.fromkeys(COLUMNS, "") | now | {"date": datetime.now(UTC).isoformat(timespec="seconds")}
            new |= {key: " ".join(_text(value).split()) for key, value in row.items()}
            same = (new["part"], new["what"], new["batch"], new["machine"])
            kept = [old for old in kept if (old["part"], old["what"], old["batch"], old["machine"]) != same] + [new]
        self.rows = kept  # all at once: whoever stops the program does so between
        lines = [COLUMNS, *([row[column] for column in COLUMNS] for row in self.rows)]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join("\t".join(line) + "\n" for line in lines))
        write_text(self.folder / "page.md", self.page())

    def page(self) -> str:
        """What was found, for people (Markdown)."""
        found = {part: self.of(part) for part in PARTS}
        lines = [f"# {self.about['machine']}", "", _verdict(found), "", "## Machine", "", "| | |", "|---|---|"]
        lines += [f"| {key} | {_cell(value)} |" for key, value in self.about.items()]
        for part, rows in found.items():
            shown = [row for row in rows if not row["what"].startswith(EACH)]
            if shown:
                lines += ["", f"## {part.capitalize()}", "", f"Code {self.code[part]}, {rows[-1]['date']}.", ""]
                lines += [f"| {' | '.join(SHOWN)} |", "|---" * len(SHOWN) + "|"]
                lines += [f"| {' | '.join(_cell(row[column]) for column in SHOWN)} |" for row in shown]
        return "\n".join(lines) + "\n"


def _text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _verdict(found: Mapping[str, Sequence[Mapping]]) -> str:
    """In a paragraph, what held and what did not, what was left out, and what is missing."""
    named: dict[str, list[str]] = {HELD: [], FAILED: [], LEFT_OUT: []}
    for row in chain(*found.values()):
        if row["held"]:
            named[row["held"]].append(row["what"] + (f" at {row['batch']}" if row["batch"] else ""))
    held, failed, left_out = named.values()
    text = f"Of {len(held) + len(failed)} expectations {len(held)} held. "
    text += f"Did not hold: {'; '.join(failed)}. " if failed else ""
    text += f"Left out: {'; '.join(left_out)}. " if left_out else ""
    missing = [part for part, rows in found.items() if not any(row["what"] == COMPLETE and row["value"] == "yes" for row in rows)]
    return text + (f"Not finished: {', '.join(missing)}." if missing else "All parts are finished.")


class TimeIsUp(BaseException):
    """Not an Exception: whoever goes on after errors, as a search that cannot be compiled does, must not go on after this."""


@contextmanager
def limited(minutes: float) -> Iterator[None]:
    """Raises TimeIsUp within it after so many minutes."""

    def end(number, frame):
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def complete(figures: Figures, part: str, missing: str) -> None:
    """End a part, with a row and a sentence; `missing` says what, if anything."""
    figures.add(part, [{"what": COMPLETE, "value": "no" if missing else "yes", "note": missing}])
    log.info("%s: %s. See %s.", part, f"{missing}; call it again" if missing else "finished", figures.folder / "page.md")


def held(holds: bool) -> dict[str, str]:
    return {"held": HELD if holds else FAILED}
