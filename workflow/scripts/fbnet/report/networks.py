"""The networks of an evaluation, as its summary has them, and how pages and pictures speak of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from fbnet.architecture.rules import RULES
from fbnet.errors import InputError
from fbnet.report.tables import count, if_any, number, one_of, positive, read_tsv, share, whole, word
from fbnet.report.words import NBSP, milliseconds

KINDS = {  # as a summary has them, and as readers do
    **{"found": "derived", "rule": "rule", "random_search": "random search"},
    **{"random": "random", "ranked": "random, over all budgets", "published": "published"},
}
NAMES = 6  # derived architectures, up to which pictures name them; above, they have numbers
LONG = 16  # letters, above which a name does not fit beside a point


@dataclass(frozen=True)
class Network:
    """A network that was trained and measured, or a random search: a row of the summary. None: not measured, or does not apply.

    Accuracies lie in [0, 1]; `top1` is the mean of `trainings` training runs on the test set, `top1_sd` their standard
    deviation. Comparisons use `latency_us`: measured and rescaled, which is `measured_us` over `level`, the scale factor of that
    measurement; or `predicted_us` where nothing was measured. All networks of one target and budget share their `baseline`. A
    random search is no network but an expectation, of the best by validation of `drawn` networks from a `pool`.
    """

    network: str
    kind: str
    search: str
    baseline: str
    seed: int | None
    rule: str | None
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
    drawn: int | None
    pool: int | None

    @property
    def what(self) -> str:
        """Its kind in words."""
        return f"rule: {RULES[self.rule].words}" if self.kind == "rule" else KINDS[self.kind]

    @property
    def best_of(self) -> str:
        """Of a random search: how many it draws; where the pool has fewer, also how many its cost allows."""
        return f"best of {self.drawn}" if self.drawn <= self.pool else f"best of {self.pool}, its cost allows {self.drawn}"


_SUMMARY = {
    **dict.fromkeys(["network", "target", "ops"], word),
    **dict.fromkeys(["search", "baseline"], str),
    "kind": one_of(*KINDS),
    "seed": if_any(whole),
    "rule": if_any(one_of(*RULES)),
    **dict.fromkeys(["predicted_us", "latency_us"], positive),
    **dict.fromkeys(["budget_us", "measured_us", "level"], if_any(positive)),
    **dict.fromkeys(["macs", "params"], whole),
    "trainings": count,
    "top1": share,
    **dict.fromkeys(["supernet_top1", "top1_sd", "validation_top1"], if_any(share)),
    **dict.fromkeys(["search_s", "training_s"], if_any(number)),
    **dict.fromkeys(["drawn", "pool"], if_any(count)),
}


def read_summary(path: Path) -> list[Network]:
    """The networks of a summary. Raises InputError that names the file."""
    rows = read_tsv(path, {field.name: _SUMMARY[field.name] for field in fields(Network)})
    if not rows:
        raise InputError(f"{path} has no networks: there is nothing to report")
    seen = set()
    for at, row in enumerate(rows, 1):
        for column in {"rule": ["rule"], "random_search": ["drawn", "pool"]}.get(row["kind"], []):
            if row[column] is None:
                raise InputError(f"{path}, row {at}: {column} is empty, but kind {row['kind']} needs it")
        if (key := (row["network"], row["target"])) in seen:
            raise InputError(f"{path} has network {row['network']} on target {row['target']} twice; keep one row")
        seen.add(key)
    return [Network(**row) for row in rows]


def trained(networks: Sequence[Network]) -> list[Network]:
    """Those that there are: a random search is but an expectation."""
    return [network for network in networks if network.kind != "random_search"]


def front(networks: Sequence[Network]) -> list[Network]:
    """The Pareto front, from fast to accurate: trained networks that no other equals in both and beats in one."""
    found: list[Network] = []
    for network in sorted(trained(networks), key=lambda network: (network.latency_us, -network.top1)):
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
    """The numbers by which pictures call the derived architectures, from fast to slow; none if names are few and short."""
    found = sorted((network for network in networks if network.kind == "found"), key=lambda network: network.latency_us)
    names = [network.network for network in found]
    return {name: at for at, name in enumerate(names, 1)} if len(names) > NAMES or max(map(len, names), default=0) > LONG else {}
