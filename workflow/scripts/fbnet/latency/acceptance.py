"""When a device is measured again: does the new latency table say the same as the one in use?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fbnet.errors import InputError
from fbnet.latency.drift import half_width
from fbnet.latency.table import KEY, read_header, read_rows
from fbnet.latency.target import Target

CHOICES = ("compare", "accept", "refuse")  # what to do with a new measurement where there is a table already
# Two tables agree if the whole level is the same within LEVEL, or NOISES times the unrest of either measurement, and if no
# more than SHARE of the cells differ beyond that by more than CELL, or NOISES times the confidence intervals of both.
LEVEL, CELL, SHARE, NOISES = 0.10, 0.10, 0.05, 3
_LEAST = 0.1  # of the mean cell: cells below it cost next to nothing, and their ratios say nothing
_SETTINGS = ("norm", *Target.__dataclass_fields__, "machine", "processor")


@dataclass(frozen=True)
class Drift:
    """How a new table differs from an old one: `level` of the middling cell (0.02: 2 % slower) and what is `allowed` of it,
    `difference` of the middling cell beyond that, and the share of `cells` that differ by more than their noise."""

    level: float
    allowed: float
    difference: float
    cells: float

    @property
    def agrees(self) -> bool:
        """Whether both tables say the same within their noise."""
        return abs(self.level) <= self.allowed and self.cells <= SHARE

    def __str__(self) -> str:
        return (
            f"level {self.level:+.1%} (allowed {self.allowed:.1%}), cells beyond it {self.difference:.1%} in the median, "
            f"and {self.cells:.1%} of them more than their noise (allowed {SHARE:.0%})"
        )


@dataclass(frozen=True)
class Verdict:
    """Whether the old table `keeps` its place, and the reason; `drift` None where the two cannot be compared."""

    keeps: bool
    reason: str
    drift: Drift | None = None

    def row(self) -> dict:
        """As a row of a record, by column."""
        numbers = asdict(self.drift) if self.drift else dict.fromkeys(Drift.__dataclass_fields__, "")
        return {"decision": "kept" if self.keeps else "replaced"} | numbers | {"reason": self.reason}


def judge(old: Path, new: Path, choice: str) -> Verdict:
    """Whether the table at `new` is to replace the one at `old`; `choice` is one of CHOICES.

    Raises InputError for a table that is none, and for choice `refuse` where the old one is of other settings.
    """
    before, after = read_header(old), read_header(new)
    changed = [
        f"{key} {before.get(key, 'unknown')}, now {after.get(key, 'unknown')}"
        for key in _SETTINGS
        if before.get(key) != after.get(key)
    ]
    drift = None if changed else _compare(old, new, max(_unrest(old, before), _unrest(new, after)))
    if not drift:
        reason = f"the table in use is of {'; '.join(changed) or 'other cells'}"
        if choice == "refuse":
            raise InputError(f"new_measurement is 'refuse', but {reason}: set it to compare or accept")
        return Verdict(False, reason)
    if choice != "compare":
        return Verdict(choice == "refuse", f"new_measurement is {choice}", drift)
    if drift.agrees:
        return Verdict(True, "it agrees with the table in use", drift)
    if "disturbed" in after:
        return Verdict(True, f"it does not agree with the table in use, but was disturbed: {after['disturbed']}", drift)
    return Verdict(False, "it does not agree with the table in use", drift)


def _unrest(path: Path, header: Mapping[str, str]) -> float:
    return _number(path, header.get("unrest", "0"))


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"the latency table {path} has {text!r} where a number must be: remove it") from None


def _compare(old: Path, new: Path, unrest: float) -> Drift | None:
    """The drift from one table to another; None where they are not of the same cells."""
    cells = [{tuple(row[column] for column in KEY): row for row in read_rows(path)} for path in (old, new)]
    if set(cells[0]) != set(cells[1]):
        return None
    keys = list(cells[0])
    (before, noise_before), (after, noise_after) = (
        _latencies(path, [rows[key] for key in keys]) for path, rows in zip((old, new), cells, strict=True)
    )
    least = _LEAST * (before.mean() + after.mean()) / 2
    counts = np.minimum(before, after) > least
    level = float(np.median(after[counts] / before[counts])) if counts.any() else 1.0
    expected = np.maximum(before * level, least)
    difference = np.abs(after - before * level) / expected
    noise = np.hypot(noise_before, noise_after) / expected
    beyond = difference > np.maximum(CELL, NOISES * noise)
    return Drift(level - 1, max(LEVEL, NOISES * unrest), float(np.median(difference)), float(beyond.mean()))


def _latencies(path: Path, rows: Sequence[Mapping[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Latencies in µs, and half of their confidence intervals."""
    us, iqr, runs = (np.array([_number(path, row.get(key, "")) for row in rows]) for key in ("latency_us", "iqr_us", "runs"))
    return us, half_width(iqr, np.maximum(runs, 1))
