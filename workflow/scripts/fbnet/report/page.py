"""The one page that shows networks, findings, targets and searches."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from fbnet.errors import InputError
from fbnet.evaluation.words import counted, rounded
from fbnet.latency import device_of
from fbnet.report.networks import KINDS, Finding, Network, accuracy, front, latency, numbers
from fbnet.report.picture import Picture
from fbnet.report.words import duration, milliseconds, percent
from fbnet.space import SearchSpace, compact

TEMPLATE = Path(__file__).parent / "page.html.j2"
HEADLINES = 4  # comparisons that stand at the top; all of them stand beside the picture


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
    networks: Sequence[Network],
    findings: Sequence[Finding],
    targets: Sequence[Target],
    searches: Sequence[Search],
    scatter: Picture,
    architectures: Picture | None,
    settings: Mapping,
    versions: Mapping[str, str],
    hashes: Mapping[str, str],
) -> str:
    """The page as HTML that loads nothing from anywhere: `scatter` shows accuracy against latency, `architectures` those derived.

    `hashes` are those of the evaluation's files.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "rounded": rounded,
        "ms": milliseconds,
        "percent": percent,
        "duration": duration,
        "sentence": _sentence,
    }
    environment.globals |= {"accuracy": accuracy, "latency": latency, "counted": counted, "kinds": KINDS}
    template = environment.from_string(TEMPLATE.read_text())
    names = [target.name for target in targets]
    ordered = sorted(networks, key=lambda network: (_place(network.target, names), network.latency_us))
    groups = {name: [network for network in ordered if network.target == name] for name in dict.fromkeys(_targets(ordered))}
    comparisons = [finding for finding in findings if finding.kind == "comparison"]
    headlines = [finding for finding in comparisons if finding.about == "all"]
    return template.render(
        space=space,
        groups=[_group(name, group, space) for name, group in groups.items()],
        networks=ordered,
        numbers=numbers(networks),
        comparisons=comparisons,
        warnings=_warnings(findings),
        headlines=headlines[:HEADLINES],
        more_claims=len(headlines[HEADLINES:]),
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
        architectures=architectures,
        settings=yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=100),
        versions=versions,
        hashes=hashes,
        lead=_lead(space, networks, targets, searches),
        table_note=_table_note(networks),
    ).lstrip()


def _sentence(text: str) -> str:
    return f"{text}." if text and not text.endswith(".") else text


def _targets(networks: Sequence[Network]) -> list[str]:
    return [network.target for network in networks]


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)


def _group(target: str, networks: Sequence[Network], space: SearchSpace) -> dict:
    """What the table says of one target: its networks, the sets of random ones each as a whole, and who is on the front."""
    best = front(networks)
    random: dict[str, list[Network]] = {}
    for network in networks:
        if network.kind == "random":
            random.setdefault(network.baseline, []).append(network)
    return {
        "target": target,
        "front": {network.network for network in best},
        "rows": [network for network in networks if network.kind != "random"],
        "random": [network for network in networks if network.kind == "random"],
        "sets": [_random_set(networks) for networks in random.values()],
        "strings": {network.network: _string(network.ops, space) for network in networks},
    }


def _random_set(networks: Sequence[Network]) -> dict:
    top1 = [network.top1 for network in networks]
    return {
        "count": len(networks),
        "name": networks[0].baseline,
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


def _warnings(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """The warnings by what they are about, those about all first."""
    grouped: dict[str, list[str]] = {}
    for finding in sorted(findings, key=lambda finding: finding.about != "all"):
        if finding.kind == "warning":
            grouped.setdefault(finding.about, []).append(finding.text)
    return grouped


def _lead(space: SearchSpace, networks: Sequence[Network], targets: Sequence[Target], searches: Sequence[Search]) -> str:
    """What was done, in a sentence or two."""
    used = set(_targets(networks))
    devices = " and ".join(f"{target.name} ({target.device})" for target in targets if target.name in used)
    layers = tuple(len(layer) for layer in space.layers)
    choices = f"{layers[0]} operators" if len(set(layers)) == 1 else f"{min(layers)} to {max(layers)} operators"
    kinds = {kind: [network for network in networks if network.kind == kind] for kind in KINDS}
    others = [counted(len(kinds[kind]), f"{kind} architecture") for kind in ("random", "published") if kinds[kind]]
    compared = f", and so were {' and '.join(others)} for comparison" if others else ""
    runs = sum(network.trainings for network in networks)
    derived = counted(len(kinds["found"]), "derived architecture")
    count = len({network.search for network in kinds["found"]} | {search.name for search in searches})
    made = f"{count} differentiable, hardware-aware {'search' if count == 1 else 'searches'}"
    return (
        f"{made} for fast networks on {devices or ', '.join(sorted(used))} chose among {choices} in each of {len(layers)} layers "
        f"(space {space.name}, {space.resolution}×{space.resolution} images). {derived} "
        f"{'was' if len(kinds['found']) == 1 else 'were'} trained from scratch and evaluated on the test set{compared}: "
        f"{counted(runs, 'training run')} in all."
    )


def _table_note(networks: Sequence[Network]) -> str:
    """How to read the table."""
    sentences = []
    if any(network.top1_sd is not None for network in networks):
        sentences.append(
            "± is one standard deviation: over a network's training runs, or over the networks in a mean of random ones."
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
