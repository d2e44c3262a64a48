"""When a device is measured again: does the new latency table say the same as the one in use?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fbnet.errors import InputError
from fbnet.latency.drift import half_width
from fbnet.latency.table import KEY, read_header, read_rows, tsv
from fbnet.latency.target import Target
from fbnet.runtime import log, write_text

CHOICES = ("compare", "accept", "refuse")  # what to do with a new measurement where there is a table already
# Two tables agree if their scale factor is 1 within SCALE, or NOISES times the timing variability of either measurement, and if
# no more than SHARE of the rescaled entries differ by more than ENTRY, or NOISES times the confidence intervals of both.
SCALE, ENTRY, SHARE, NOISES = 0.10, 0.10, 0.05, 3
_LEAST = 0.1  # of the mean entry: entries below it cost next to nothing, and their ratios say nothing
_SETTINGS = ("norm", *Target.__dataclass_fields__, "machine", "processor")


@dataclass(frozen=True)
class Drift:
    """How a new table differs from an old one, as the columns of a record: `level`, the scale factor − 1 (0.02: 2 % slower), and
    what is `allowed` of it; the median `difference` of rescaled entries; the share of entries (`cells`) beyond their noise."""

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
            f"scale factor {1 + self.level:.3f} (allowed {self.allowed:.1%} from 1); rescaled, entries differ by "
            f"{self.difference:.1%} in the median, and {self.cells:.1%} of them by more than their noise (allowed {SHARE:.0%})"
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


def settle(text: str, history: Path, choice: str) -> str:
    """The table to use: a new one, given as text, or the one in use if it says the same. `choice` as for `compare`.

    The folder `history` keeps both, and how they differ; the table in use is there too, since Snakemake removes a rule's outputs
    before it runs.
    """
    accepted, measured, before, record = (history / f"{name}.tsv" for name in ("accepted", "measured", "before", "drift"))
    write_text(measured, text)
    if not accepted.exists():
        write_text(accepted, text)
        return text
    verdict = compare(accepted, measured, choice)
    row = {"date": read_header(measured).get("date", "")} | verdict.row()
    lines = record.read_text(encoding="utf-8") if record.exists() else tsv([], list(row), {})
    write_text(record, lines + tsv([row], list(row), {}).partition("\n")[2])
    told = f"{verdict.reason}{f' ({verdict.drift})' if verdict.drift else ''}"
    write_text(before, accepted.read_text(encoding="utf-8"))
    if verdict.keeps:
        log.info("The table in use stays as it is, and nothing need run again: %s. The new measurement: %s", told, measured)
        return accepted.read_text(encoding="utf-8")
    log.warning("The new measurement replaces the table in use, and searches run again: %s. The old table: %s", told, before)
    write_text(accepted, text)
    return text


def compare(old: Path, new: Path, choice: str) -> Verdict:
    """Whether the table at `new` is to replace the one at `old`; `choice` is one of CHOICES.

    Raises InputError for a table that is none, and for choice `refuse` where the old one is of other settings.
    """
    before, after = read_header(old), read_header(new)
    changed = [
        f"{key} {before.get(key, 'unknown')}, now {after.get(key, 'unknown')}"
        for key in _SETTINGS
        if before.get(key) != after.get(key)
    ]
    drift = None if changed else _drift(old, new, max(_variability(old, before), _variability(new, after)))
    if not drift:
        reason = f"the table in use is of {'; '.join(changed) or 'other entries'}"
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


def _variability(path: Path, header: Mapping[str, str]) -> float:
    return _number(path, header.get("variability", "0"))


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"the latency table {path} has {text!r} where a number must be: remove it") from None


def _drift(old: Path, new: Path, variability: float) -> Drift | None:
    """The drift from one table to another; None where they have not the same entries."""
    entries = [{tuple(row[column] for column in KEY): row for row in read_rows(path)} for path in (old, new)]
    if set(entries[0]) != set(entries[1]):
        return None
    keys = list(entries[0])
    (before, noise_before), (after, noise_after) = (
        _latencies(path, [rows[key] for key in keys]) for path, rows in zip((old, new), entries, strict=True)
    )
    least = _LEAST * (before.mean() + after.mean()) / 2
    counts = np.minimum(before, after) > least
    scale = float(np.median(after[counts] / before[counts])) if counts.any() else 1.0
    expected = np.maximum(before * scale, least)
    difference = np.abs(after - before * scale) / expected
    noise = np.hypot(noise_before, noise_after) / expected
    beyond = difference > np.maximum(ENTRY, NOISES * noise)
    return Drift(scale - 1, max(SCALE, NOISES * variability), float(np.median(difference)), float(beyond.mean()))


def _latencies(path: Path, rows: Sequence[Mapping[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Latencies in µs, and half of their confidence intervals."""
    us, iqr, runs = (np.array([_number(path, row.get(key, "")) for row in rows]) for key in ("latency_us", "iqr_us", "runs"))
    return us, half_width(iqr, np.maximum(runs, 1))
