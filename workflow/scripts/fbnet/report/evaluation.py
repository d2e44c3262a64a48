"""What an evaluation says, as its tables have it: networks, how they compare, how they are ordered, and findings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fbnet.architecture.rules import RULES
from fbnet.report.devices import OnDevice, read_devices
from fbnet.report.networks import Network, read_summary
from fbnet.report.tables import (
    correlation,
    count,
    if_any,
    if_finite,
    number,
    one_of,
    positive,
    read_tsv,
    share,
    signed,
    truth,
    word,
)

BY = {  # what an order follows, as a ranking has it and as readers do, in the order in which they are shown
    "training": "training runs against one another (ceiling)",
    **{"supernet": "supernet", "macs": "MACs", "params": "parameters", "latency": "predicted latency", "chance": "chance"},
}


@dataclass(frozen=True)
class Comparison:
    """The architectures that a method derived within a budget against one baseline; accuracies and difference lie in [0, 1].

    `half_width` is half of the 95 % confidence interval, None if nothing tells it; `baseline` is what all networks of this target
    and budget share, `budget_us` None if there is none, `other` the baseline's name.
    """

    target: str
    baseline: str
    budget_us: float | None
    method: str
    networks: str
    top1: float
    against: str
    other: str
    others: int
    other_top1: float
    difference: float
    half_width: float | None
    at_equal_latency: bool
    verdict: str


@dataclass(frozen=True)
class Order:
    """How random architectures of a target are ordered `by` something that is known before their training.

    `tau` is Kendall's τ with the accuracy after training, None if it is not defined; by chance it stays within ±
    `tau_by_chance`. `regret`, in [0, 1]: how much less accurate than the best is the one that is put first.
    """

    target: str
    search: str
    by: str
    networks: int
    tau: float | None
    tau_by_chance: float
    regret: float


@dataclass(frozen=True)
class Finding:
    """A finished sentence, a `comparison`, a `warning` or about a `device`, about a search or about all."""

    about: str
    kind: str
    text: str


@dataclass(frozen=True)
class Evaluation:
    """All of it."""

    networks: list[Network]
    comparisons: list[Comparison]
    orders: list[Order]
    devices: list[OnDevice]
    findings: list[Finding]


_COMPARISON: Mapping[str, Callable] = {
    **dict.fromkeys(["target", "baseline", "method", "networks", "other"], word),
    "budget_us": if_any(positive),
    **dict.fromkeys(["top1", "other_top1"], share),
    "against": one_of("random", "random_search", *RULES),
    "others": count,
    "difference": signed,
    "half_width": if_finite(number),
    "at_equal_latency": truth,
    "verdict": one_of("better", "worse", "equal", "unknown"),
}
_ORDER: Mapping[str, Callable] = {
    **{"target": word, "search": str, "by": one_of(*BY), "networks": count},
    **{"tau": if_any(correlation), "tau_by_chance": number, "regret": share},
}
_FINDING: Mapping[str, Callable] = {"about": word, "kind": one_of("comparison", "warning", "device"), "text": word}


def read_evaluation(summary: Path, comparisons: Path, ranking: Path, devices: Path, findings: Path) -> Evaluation:
    """The tables of an evaluation. Raises InputError that names file, row and column."""
    return Evaluation(
        read_summary(summary),
        [Comparison(**row) for row in read_tsv(comparisons, _COMPARISON)],
        [Order(**row) for row in read_tsv(ranking, _ORDER)],
        read_devices(devices),
        [Finding(**row) for row in read_tsv(findings, _FINDING)],
    )


def read_one_shot(path: Path) -> dict[str, float]:
    """One-shot accuracies in [0, 1] by the names of architectures. Raises InputError that names file, row and column."""
    return {row["name"]: row["supernet_top1"] for row in read_tsv(path, {"name": word, "supernet_top1": share})}
