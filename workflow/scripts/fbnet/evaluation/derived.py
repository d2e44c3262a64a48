"""The architecture that a search has derived, and what is known of it; needs no torch, no NumPy."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.errors import InputError
from fbnet.evaluation.diagnosis import diagnosis
from fbnet.latency import read_header, read_table
from fbnet.space import compact, make_space


@dataclass(frozen=True)
class Derived:
    """The first architecture of a search: latencies in µs, MACs, parameters, accuracies in [0, 1]; None for what is not known.

    `one_shot` is the accuracy with inherited weights, `epochs` and `test` are those of the race that it has won.
    `rescaled_us` is the measured latency at the speed that the machine had for its latency table, `budget` says what
    `budget_us` follows from, `disturbed` what disturbed the measurement, and `faults` what is wrong with the search.
    """

    search: str
    target: str
    compact: str
    macs: int
    params: int
    one_shot: float | None
    predicted_us: float
    budget_us: float | None
    budget: str
    faults: tuple[str, ...]
    epochs: int | None = None
    test: float | None = None
    measured_us: float | None = None
    rescaled_us: float | None = None
    disturbed: str | None = None


def read_derived(search: str, config: Mapping) -> Derived | None:
    """What a search of a resolved configuration has derived; None if it has not run. Raises InputError for a damaged file."""
    settings, results = config["searches"][search], Path(config["results"])
    path = results / f"modeldef/{search}.json"
    if not path.is_file():
        return None
    with undamaged(path):
        document = json.loads(path.read_text(encoding="utf-8"))
        [(name, entry), *_] = document["architectures"].items()
        provenance, ops = document["provenance"], entry["ops"].split(" ")
        space, classes = make_space(provenance["space"]), len(provenance["classes"])
        aim_us = provenance["settings"].get("loss", {}).get("target_us")
        known = {"macs": entry["macs"], "params": entry["params"], "predicted_us": entry["latency_us"]}
        known |= {"epochs": entry.get("epochs"), "test": entry.get("test_top1")}
        known["one_shot"] = entry.get("supernet_top1", provenance["top1"] if ops == provenance["ops"] else None)
    budget = settings["latency_budget"]
    if budget:
        table = read_table(results / f"latency/{settings['target']}.tsv", space, classes)
        known |= {"budget_us": in_us(budget, table), "budget": budget}
    else:
        known |= {"budget_us": aim_us, "budget": "loss.target_us"}
    theta = read_theta(results / f"search/{config['supernets'][search]}/theta.tsv")
    known["faults"] = tuple(diagnosis(space, ops, theta, known["one_shot"], classes))
    return Derived(
        search, settings["target"], compact(ops, space), **known, **_measured(results / f"measurement/{search}.tsv", name, ops)
    )


def read_theta(path: Path) -> list[list[float]]:
    """The probabilities of theta after the last epoch, layer by layer; none if there is no such file. Raises InputError."""
    layers: dict[tuple[int, str], list[float]] = {}
    if path.is_file():
        with undamaged(path), path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                layers.setdefault((int(row["epoch"]), row["layer"]), []).append(float(row["probability"]))
    last = max((epoch for epoch, _ in layers), default=None)
    return [row for (epoch, _), row in layers.items() if epoch == last]


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Within it, whatever is wrong with a file's content becomes an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path} is not as it was made: delete it, and the next call makes it again") from None


def _measured(path: Path, name: str, ops: list[str]) -> dict:
    """What the measurement of this architecture says; nothing if there is none, or only one of another search before."""
    if not path.is_file():
        return {}
    with undamaged(path):
        lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
        for row in csv.DictReader(lines, delimiter="\t"):
            if row["name"] == name and row["ops"].split(" ") == ops:
                latencies = {"measured_us": float(row["measured_us"]), "rescaled_us": float(row["latency_us"])}
                return latencies | {"disturbed": read_header(path).get("disturbed")}
    return {}
