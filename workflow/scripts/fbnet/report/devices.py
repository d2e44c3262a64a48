"""Devices side by side: every derived network on each of them, and where those that were chosen for them differ."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from fbnet.errors import InputError
from fbnet.report.tables import count, if_any, positive, read_tsv, share, whole, word
from fbnet.space import SearchSpace


@dataclass(frozen=True)
class OnDevice:
    """A derived network on a target, whichever it was chosen for. None: not known there.

    `latency_us` is measured and rescaled; `within` names the searches for the target whose budgets it keeps.
    """

    target: str
    network: str
    chosen_for: str
    budget_us: float | None
    predicted_us: float
    latency_us: float | None
    within: str
    trainings: int
    top1: float
    top1_sd: float | None
    validation_top1: float
    macs: int
    params: int
    int8_bytes: int
    ops: str
    measured_us: float | None

    @property
    def rescaled_us(self) -> float | None:
        """As it was measured, rescaled."""
        return None if self.measured_us is None else self.latency_us


_COLUMNS = {
    **dict.fromkeys(["target", "network", "chosen_for", "ops"], word),
    **dict.fromkeys(["budget_us", "latency_us", "measured_us"], if_any(positive)),
    **{"predicted_us": positive, "within": str, "trainings": count, "top1_sd": if_any(share)},
    **dict.fromkeys(["top1", "validation_top1"], share),
    **dict.fromkeys(["macs", "params", "int8_bytes"], whole),
}


@dataclass(frozen=True)
class Row:
    """A network on the target that it was chosen for, and on all targets by name."""

    own: OnDevice
    on: Mapping[str, OnDevice]


@dataclass(frozen=True)
class Difference:
    """A layer in which the networks differ: its number from 1, its output, and what is chosen there for each target."""

    layer: int
    output: str
    ops: Sequence[str]


@dataclass(frozen=True)
class Devices:
    """The targets, all networks by what they were chosen for, of each target the best by validation, and how these differ."""

    targets: list[str]
    rows: list[Row]
    best: list[OnDevice]
    layers: int
    differences: list[Difference]


def read_devices(path: Path) -> list[OnDevice]:
    """The rows of an evaluation's table of devices: each network once on each target. Raises InputError that names the file."""
    rows = [OnDevice(**row) for row in read_tsv(path, {field.name: _COLUMNS[field.name] for field in fields(OnDevice)})]
    pairs = [(row.network, row.target) for row in rows]
    for pair in itertools.product(dict.fromkeys(row.network for row in rows), dict.fromkeys(row.chosen_for for row in rows)):
        if pairs.count(pair) != 1:
            raise InputError(f"{path} has {pairs.count(pair)} rows of network {pair[0]} on target {pair[1]}, but needs one")
    return rows


def side_by_side(rows: Sequence[OnDevice], space: SearchSpace) -> Devices | None:
    """What there is to show; None for networks of one target. Raises InputError for an architecture that is not of the space."""
    if not rows:
        return None
    targets = list(dict.fromkeys(row.target for row in rows))
    networks: dict[str, dict[str, OnDevice]] = {}
    for row in rows:
        networks.setdefault(row.network, {})[row.target] = row
    shown = [Row(on[next(iter(on.values())).chosen_for], on) for on in networks.values()]
    shown.sort(key=lambda row: (targets.index(row.own.target), row.own.predicted_us))
    best = [
        max((row.own for row in shown if row.own.target == target), key=lambda network: network.validation_top1)
        for target in targets
    ]
    paths = [space.path(network.ops.split()) for network in best]
    differences = [
        Difference(number, _output(cells[0]), [cell.choice.removeprefix("ir_") for cell in cells])
        for number, cells in enumerate(zip(*paths, strict=True), 1)
        if len({cell.choice for cell in cells}) > 1
    ]
    return Devices(targets, shown, best, len(space.layers), differences)


def _output(cell) -> str:
    return "×".join(str(-(-side // cell.stride)) for side in (cell.height, cell.width))
