"""What the evaluation says: its networks and findings, as their tables have them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from fbnet.errors import InputError
from fbnet.report.tables import count, if_any, number, one_of, positive, read_tsv, share, whole, word
from fbnet.report.words import NBSP, milliseconds

KINDS = {"found": "derived", "random": "random", "published": "published"}  # as a summary has them, and as readers do
NAMES = 6  # derived architectures, up to which pictures name them; above, they have numbers


@dataclass(frozen=True)
class Network:
    """A network that was trained and measured: a row of the summary. None is what was not measured or does not apply.

    Accuracies lie in [0, 1]; `top1` is the mean of `trainings` training runs on the test set, `top1_sd` their standard
    deviation. Comparisons use `latency_us`: measured and rescaled, which is `measured_us` over `level`, the scale factor of that
    measurement; or `predicted_us` where nothing was measured.
    """

    network: str
    kind: str
    search: str
    baseline: str
    seed: int | None
    target: str
    budget_us: float | None
    ops: str
    predicted_us: float
    measured_us: float | None
    level: float | None
    latency_us: float
    macs: int
    params: int
    supernet_top1: float | None
    trainings: int
    top1: float
    top1_sd: float | None
    validation_top1: float | None
    search_s: float | None
    training_s: float | None


@dataclass(frozen=True)
class Finding:
    """A finished sentence, a `comparison` or a `warning`, about a search or about all."""

    about: str
    kind: str
    text: str


_SUMMARY = {
    **dict.fromkeys(["network", "target", "ops"], word),
    **dict.fromkeys(["search", "baseline"], str),
    "kind": one_of(*KINDS),
    "seed": if_any(whole),
    **dict.fromkeys(["predicted_us", "latency_us"], positive),
    **dict.fromkeys(["budget_us", "measured_us", "level"], if_any(positive)),
    **dict.fromkeys(["macs", "params"], whole),
    "trainings": count,
    "top1": share,
    **dict.fromkeys(["supernet_top1", "top1_sd", "validation_top1"], if_any(share)),
    **dict.fromkeys(["search_s", "training_s"], if_any(number)),
}


def read_summary(path: Path) -> list[Network]:
    """The networks of a summary. Raises InputError that names the file."""
    rows = read_tsv(path, {field.name: _SUMMARY[field.name] for field in fields(Network)})
    if not rows:
        raise InputError(f"{path} has no networks: there is nothing to report")
    seen = set()
    for row in rows:
        if (key := (row["network"], row["target"])) in seen:
            raise InputError(f"{path} has network {row['network']} on target {row['target']} twice; keep one row")
        seen.add(key)
    return [Network(**row) for row in rows]


def read_findings(path: Path) -> list[Finding]:
    """Claims and warnings. Raises InputError that names the file."""
    return [Finding(**row) for row in read_tsv(path, {"about": word, "kind": one_of("comparison", "warning"), "text": word})]


def front(networks: Sequence[Network]) -> list[Network]:
    """The Pareto front, from fast to accurate: networks that no other equals in both and beats in one."""
    found: list[Network] = []
    for network in sorted(networks, key=lambda network: (network.latency_us, -network.top1)):
        if not found or network.top1 > found[-1].top1 or _same(network, found[-1]):
            found.append(network)
    return found


def _same(one: Network, other: Network) -> bool:
    return (one.latency_us, one.top1) == (other.latency_us, other.top1)


def latency(network: Network) -> str:
    """The latency that comparisons use, and how it was had."""
    return f"{milliseconds(network.latency_us)} {'predicted' if network.measured_us is None else 'measured and rescaled'}"


def accuracy(network: Network) -> str:
    """Test accuracy in per cent, ± standard deviation over its training runs where it is known."""
    sd = "" if network.top1_sd is None else f"{NBSP}±{NBSP}{100 * network.top1_sd:.2f}"
    return f"{100 * network.top1:.2f}{sd}%"


def numbers(networks: Sequence[Network]) -> dict[str, int]:
    """The numbers that pictures and tables give the derived architectures, from fast to slow; none if few enough to be named."""
    found = sorted((network for network in networks if network.kind == "found"), key=lambda network: network.latency_us)
    return {network.network: number for number, network in enumerate(found, 1)} if len(found) > NAMES else {}
