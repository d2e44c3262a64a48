"""The report of a run: networks and findings as their tables have them, and the one page that shows them."""

import base64
import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import yaml

from fbnet.architecture import compact
from fbnet.errors import InputError
from fbnet.latency import device_of
from fbnet.space import SearchSpace

TEMPLATE = Path(__file__).parents[2] / "report" / "report.html.j2"
KINDS = ("found", "random", "published")
HEADLINES = 4  # comparisons that stand at the top; all of them stand beside the picture
NAMES = 6  # networks found, up to which pictures name them; above, they have numbers
NBSP = "\N{NO-BREAK SPACE}"
PIXELS = {"pt": 4 / 3, "px": 1, "in": 96, "": 1}


@dataclass(frozen=True)
class Network:
    """A network that was trained and measured: a row of the summary. None is what was not measured or does not apply.

    Accuracies lie in [0, 1]; `top1` is the mean of `trainings` trainings on the test set. Comparisons use `latency_us`:
    `measured_us` relative to the `level` of the rounds it was measured in, or `predicted_us` where nothing was measured.
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


@dataclass(frozen=True)
class Picture:
    """An SVG picture: its bytes, the caption that it carries as its description, its width in CSS pixels."""

    svg: bytes
    caption: str
    width: float

    @property
    def uri(self) -> str:
        """The picture as the address of an image that loads nothing."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


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


def number(text: str) -> float:
    """A finite number, 0 or more."""
    return _within(text, math.inf, "a number, 0 or more")


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _within(text, math.inf, "a number above 0")
    if value == 0:
        raise ValueError("a number above 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _within(text, 1, "a number from 0 to 1")


def whole(text: str) -> int:
    """A whole number, 0 or more; also as tables with gaps have it: 3.0."""
    value = _within(text, math.inf, "a whole number, 0 or more")
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


def _within(text: str, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most or math.isinf(value):
        raise ValueError(what)
    return value


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


def read_tsv(path: Path, columns: Mapping[str, Callable]) -> list[dict]:
    """The rows of a TSV file, each column read by its function (which may raise ValueError that says what it must be).

    Raises InputError that names file, row, column and value.
    """
    try:
        text = Path(path).read_text()
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


def read_picture(path: Path) -> Picture:
    """An SVG file with its caption. Raises InputError that names the file."""
    try:
        svg = Path(path).read_bytes()
        root = ElementTree.fromstring(svg)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"the picture {path} cannot be read as SVG: {error}") from None
    if root.tag != "{http://www.w3.org/2000/svg}svg":
        raise InputError(f"the picture {path} is no SVG: its first element is {root.tag}")
    width = root.get("width", "")
    digits = width.rstrip("ptxin")
    try:
        pixels = float(digits) * PIXELS[width[len(digits) :]]
    except (ValueError, KeyError):
        raise InputError(f"the picture {path} has the width {width!r}, but must have one in pt, px or in") from None
    return Picture(svg, root.findtext(".//{http://purl.org/dc/elements/1.1/}description", ""), pixels)


def front(networks: Sequence[Network]) -> list[Network]:
    """The Pareto front, from fast to accurate: networks that no other equals in both and beats in one."""
    found: list[Network] = []
    for network in sorted(networks, key=lambda network: (network.latency_us, -network.top1)):
        if not found or network.top1 > found[-1].top1 or _same(network, found[-1]):
            found.append(network)
    return found


def _same(one: Network, other: Network) -> bool:
    return (one.latency_us, one.top1) == (other.latency_us, other.top1)


def rounded(value: float, significant: int = 3) -> str:
    """A number with so many significant digits and no exponent."""
    decimals = significant - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, decimals)}f}"


def milliseconds(latency_us: float) -> str:
    """A latency with its unit."""
    return f"{rounded(latency_us / 1000)}{NBSP}ms"


def percent(value: float) -> str:
    """An accuracy in per cent."""
    return f"{value:.2%}"


def accuracy(network: Network) -> str:
    """Test accuracy in per cent, ± standard deviation where it is known."""
    sd = "" if network.top1_sd is None else f"{NBSP}±{NBSP}{100 * network.top1_sd:.2f}"
    return f"{100 * network.top1:.2f}{sd}%"


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 12 min, 3.4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f}{NBSP}s"
    return f"{seconds / 60:.0f}{NBSP}min" if seconds < 99.5 * 60 else f"{rounded(seconds / 3600, 2)}{NBSP}h"


def counted(count: int, one: str, more: str = "") -> str:
    """`1 network`, `2 networks`."""
    return f"{count} {one if count == 1 else more or one + 's'}"


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
    """The page as HTML that loads nothing from anywhere: `scatter` shows accuracy against latency, `architectures` all found.

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
    environment.globals |= {"accuracy": accuracy, "counted": counted}
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


def numbers(networks: Sequence[Network]) -> dict[str, int]:
    """The numbers that pictures and tables give the networks found, from fast to slow; none if few enough to be named."""
    found = sorted((network for network in networks if network.kind == "found"), key=lambda network: network.latency_us)
    return {network.network: number for number, network in enumerate(found, 1)} if len(found) > NAMES else {}


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
    others = [counted(len(kinds[kind]), f"{kind} network") for kind in KINDS[1:] if kinds[kind]]
    compared = f", and so were {' and '.join(others)} to compare with" if others else ""
    trainings = sum(network.trainings for network in networks)
    count = len({network.search for network in kinds["found"]} | {search.name for search in searches})
    return (
        f"{counted(count, 'search', 'searches')} looked for fast networks on {devices or ', '.join(sorted(used))}, "
        f"choosing among {choices} in each of {len(layers)} layers (space {space.name}, {space.resolution}×{space.resolution} "
        f"images). {counted(len(kinds['found']), 'network')} found {'was' if len(kinds['found']) == 1 else 'were'} trained from "
        f"scratch and held against the test set{compared}: {counted(trainings, 'training')} in all."
    )


def _table_note(networks: Sequence[Network]) -> str:
    """How to read the table."""
    sentences = []
    if any(network.top1_sd is not None for network in networks):
        sentences.append(
            "± is the standard deviation over a network's trainings, in a set of random networks that over its networks."
        )
    if any(network.level is not None for network in networks):
        sentences.append(
            "Latencies are measured end to end, and divided by what reference networks of the same rounds took relative to their "
            "prediction."
        )
    if any(network.measured_us is None for network in networks):
        sentences.append("Those with a * were not measured: they are the table's prediction.")
    if any(network.supernet_top1 is not None for network in networks):
        sentences.append("“Supernet top-1” is with the supernet's shared weights, before any retraining.")
    return " ".join(sentences)
