"""The one page that shows networks, findings, targets and searches."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from fbnet.errors import InputError
from fbnet.evaluation.words import counted, rounded
from fbnet.latency import device_of
from fbnet.report.devices import side_by_side
from fbnet.report.evaluation import BY, Evaluation, Finding, Order
from fbnet.report.headline import VERDICTS, headline
from fbnet.report.networks import Network, accuracy, front, latency, numbers, trained
from fbnet.report.picture import Picture
from fbnet.report.words import NBSP, duration, milliseconds, percent
from fbnet.space import SearchSpace, compact

TEMPLATE = Path(__file__).parent / "page.html.j2"
FEW = 3  # searches, up to which a warning names them
CLAIMS = 10  # sentences that are shown; more are folded


@dataclass(frozen=True)
class Target:
    """A latency target: headers of its table and of its validation (None if it is not measured), their pictures, and hashes."""

    name: str
    header: Mapping[str, str]
    heat_map: Picture
    validation: Mapping[str, str] | None
    scatter: Picture | None
    hashes: Mapping[str, str]

    @property
    def device(self) -> str:
        """In words, what was measured."""
        return device_of(self.header)


@dataclass(frozen=True)
class Search:
    """A search by name, with its pictures."""

    name: str
    theta: Picture
    history: Picture
    architecture: Picture


def page(
    space: SearchSpace,
    evaluation: Evaluation,
    targets: Sequence[Target],
    searches: Sequence[Search],
    scatter: Picture,
    ranking: Picture | None,
    architectures: Picture | None,
    settings: Mapping,
    versions: Mapping[str, str],
    hashes: Mapping[str, str],
) -> str:
    """The page as HTML that loads nothing from anywhere.

    `scatter` shows accuracy against latency, `ranking` the order inside the supernets, `architectures` those derived; `hashes`
    are those of the evaluation's files.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "rounded": rounded,
        "ms": milliseconds,
        "percent": percent,
        "points": _points,
        "kilobytes": lambda size: f"{rounded(size / 1000)} kB".replace(" ", NBSP),
        "duration": duration,
        "sentence": _sentence,
    }
    environment.globals |= {"accuracy": accuracy, "latency": latency, "counted": counted, "verdicts": VERDICTS}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    networks, findings = evaluation.networks, evaluation.findings
    names = [target.name for target in targets]
    ordered = sorted(networks, key=lambda network: (_place(network.target, names), network.latency_us))
    groups = {name: [network for network in ordered if network.target == name] for name in dict.fromkeys(_targets(ordered))}
    return template.render(
        space=space,
        groups=[_group(name, group, space) for name, group in groups.items()],
        networks=ordered,
        numbers=numbers(networks),
        headline=headline(evaluation),
        warnings=_warnings(findings),
        claims=_claims(findings, "comparison"),
        devices=side_by_side(evaluation.devices, space),
        on_devices=_claims(findings, "device"),
        orders=_orders(evaluation.orders),
        targets=targets,
        searches=[
            {
                "pictures": search,
                "networks": [network for network in ordered if network.search == search.name],
                "findings": [finding for finding in findings if finding.about == search.name],
            }
            for search in searches
        ],
        scatter=scatter,
        ranking=ranking,
        architectures=architectures,
        settings=yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=100),
        versions=versions,
        hashes=hashes,
        lead=_lead(space, networks, targets, searches, settings.get("train", {}).get("start")),
        table_note=_table_note(networks),
    ).lstrip()


def _sentence(text: str) -> str:
    return f"{text}." if text and not text.endswith(".") else text


def _points(value: float, sign: str = "") -> str:
    """An accuracy or a difference, given in [0, 1], in percentage points."""
    return f"{100 * value:{sign}.1f}".replace("-", "\N{MINUS SIGN}")


def _targets(networks: Sequence[Network]) -> list[str]:
    return [network.target for network in networks]


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)


def _group(target: str, networks: Sequence[Network], space: SearchSpace) -> dict:
    """What the table says of one target: its networks, the sets of random ones each as a whole, and who is on the front."""
    best = front(networks)
    rows = [network for network in networks if network.kind not in ("random", "ranked")]
    random = [network for network in networks if network.kind in ("random", "ranked")]
    sets: dict[str, list[Network]] = {}
    for network in random:
        if network.kind == "random":
            sets.setdefault(network.baseline, []).append(network)
    return {
        "target": target,
        "front": {network.network for network in best},
        "rows": rows,
        "random": random,
        "sets": [_random_set(networks) for networks in sets.values()],
        "strings": {network.network: _string(network.ops, space) for network in networks},
    }


def _random_set(networks: Sequence[Network]) -> dict:
    top1 = [network.top1 for network in networks]
    return {
        "count": len(networks),
        "name": f"random_{networks[0].baseline}",
        "budget_us": networks[0].budget_us,
        "latency_us": statistics.mean(network.latency_us for network in networks),
        "predicted_us": statistics.mean(network.predicted_us for network in networks),
        "mean": statistics.mean(top1),
        "sd": statistics.stdev(top1) if len(top1) > 1 else None,
        "best": max(top1),
        "trainings": sum(network.trainings for network in networks),
    }


def _string(ops: str, space: SearchSpace) -> str:
    """An architecture in its compact form; as it stands if it is one of another space."""
    try:
        return compact(ops.split(), space)
    except InputError:
        return ops.replace("ir_", "")


def _claims(findings: Sequence[Finding], kind: str) -> tuple[list[str], list[str]]:
    """The sentences of a kind about all: those that are shown, and those that are folded."""
    texts = [finding.text for finding in findings if (finding.about, finding.kind) == ("all", kind)]
    return texts[:CLAIMS], texts[CLAIMS:]


def _warnings(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Warnings, those about all first: what each is about, and its text.

    Those that differ but in their numbers are one, with the numbers of the first; each stands whole at its search.
    """
    alike: dict[tuple[bool, str], list[Finding]] = {}
    for finding in findings:
        if finding.kind == "warning":
            alike.setdefault((finding.about != "all", re.sub(r"[-+]?\d[\d.,]*", "0", finding.text)), []).append(finding)
    found = []
    for (of_search, _), group in sorted(alike.items(), key=lambda item: item[0][0]):
        names = list(dict.fromkeys(finding.about for finding in group))
        about = ", ".join(names) if len(names) <= FEW else f"{len(names)} searches"
        if len({finding.text for finding in group}) > 1:
            about = f"{about if of_search else f'{len(group)} alike'} (numbers of the first)"
        found.append(("" if about == "all" else about, group[0].text))
    return found


def _orders(orders: Sequence[Order]) -> dict[str, list[tuple[str, Order]]]:
    """By target what orders its random architectures, in words and as the ranking has it: the ceiling first, chance last."""
    places = list(BY)
    grouped: dict[str, list[tuple[str, Order]]] = {}
    for order in sorted(orders, key=lambda order: places.index(order.by)):
        words = f"{BY[order.by]} of {order.search}" if order.by == "supernet" else BY[order.by]
        grouped.setdefault(order.target, []).append((words, order))
    return grouped


def _lead(
    space: SearchSpace, networks: Sequence[Network], targets: Sequence[Target], searches: Sequence[Search], start: str | None
) -> str:
    """What was done, in a sentence or two."""
    used = set(_targets(networks))
    devices = " and ".join(f"{target.name} ({target.device})" for target in targets if target.name in used)
    layers = tuple(len({cell.op for cell in layer}) for layer in space.layers)
    choices = f"{layers[0]} operators" if len(set(layers)) == 1 else f"{min(layers)} to {max(layers)} operators"
    channels = ", and among channels of their stages" if space.elastic else ""
    found = [network for network in networks if network.kind == "found"]
    runs = {network.network: network.trainings for network in trained(networks)}  # one network may stand for several targets
    derived = {network.network for network in found}
    count = len({network.search for network in found} | {search.name for search in searches})
    others = f" and {counted(len(runs) - len(derived), 'other')} to compare with" if len(runs) > len(derived) else ""
    how = "what the supernet has learned" if start == "supernet" else "scratch"
    return (
        f"{count} hardware-aware {'search' if count == 1 else 'searches'} for fast networks on "
        f"{devices or ', '.join(sorted(used))} chose among {choices} in each of {len(layers)} layers{channels} (space "
        f"{space.name}, {space.resolution}×{space.resolution} images). {counted(len(derived), 'derived architecture')}{others} "
        f"{'was' if len(runs) == 1 else 'were'} trained from {how}: {counted(sum(runs.values()), 'training run')} in all."
    )


def _table_note(networks: Sequence[Network]) -> str:
    """How to read the table."""
    sentences = []
    if any(network.top1_sd is not None for network in networks):
        sentences.append(
            "± is one standard deviation: over a network's training runs, or over the networks in a mean of random ones."
        )
    if any(network.kind == "random_search" for network in networks):
        sentences.append(
            "A random search is no network but an expectation: the best by validation of so many random networks, each trained "
            "once; ± is between such searches, the search time is what they take, the architecture the one chosen most often."
        )
    if any(network.level is not None for network in networks):
        sentences.append(
            "“Latency” is measured end to end and rescaled: divided by the scale factor, the median of measured over predicted "
            "latency of reference networks in the same rounds."
        )
    if any(network.measured_us is None for network in networks):
        sentences.append("Latencies with a * were not measured: they are predicted.")
    if any(network.supernet_top1 is not None for network in networks):
        sentences.append("“One-shot top-1” is with inherited weights, on the search's architecture (validation) split.")
    return " ".join(sentences)
