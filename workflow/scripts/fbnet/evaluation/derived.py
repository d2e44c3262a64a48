"""The architecture that a search has derived, and what is known of it; needs no torch, no NumPy."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fbnet.architecture import budget, in_us
from fbnet.errors import InputError
from fbnet.evaluation.diagnosis import diagnosis
from fbnet.latency import read_header, read_table
from fbnet.space import compact, make_space


@dataclass(frozen=True)
class Derived:
    """The first architecture of a search: latencies in µs, MACs, parameters, accuracies in [0, 1]; None for what is not known.

    `one_shot` is the accuracy with inherited weights; `epochs`, `test` and `chosen_by` are those of the race that it has won;
    `trained` says what training runs of its own have led to, and `limits` what further budgets allow and what it uses of them.
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
    limits: tuple[str, ...] = ()
    epochs: int | None = None
    test: float | None = None
    chosen_by: str | None = None
    trained: str | None = None
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
        known |= {"epochs": entry.get("epochs"), "test": entry.get("test_top1"), "chosen_by": entry.get("chosen_by")}
        known["one_shot"] = entry.get("supernet_top1", provenance["top1"] if ops == provenance["ops"] else None)
    if known["one_shot"] is None:
        known["one_shot"] = _chosen(results / f"choice/{search}.tsv", ops)
    if (results / f"trained/{search}.onnx").is_file():
        known["trained"] = _trained(
            [results / f"training/{search}/seed_{seed}/history.tsv" for seed in range(config["evaluation"]["trainings"])]
        )
    tables = {name: results / f"latency/{name}.tsv" for name in (settings["target"], *settings["budgets"])}
    if wished := settings["latency_budget"]:
        table = read_table(tables[settings["target"]], space, classes)
        known |= {"budget_us": in_us(wished, table), "budget": wished}
    else:
        known |= {"budget_us": aim_us, "budget": "loss.target_us"}
    theta = read_theta(results / f"search/{config['supernets'][search]}/theta.tsv")
    limits = []
    for name, amount in settings["budgets"].items():
        if name in budget.UNITS:
            used = f", {budget.in_words(f'budgets.{name}', known[name])} used" if name in known else ""
            limits.append(f"{name} budget: {amount}{used}")
        else:
            table = read_table(tables[name], space, classes)
            allowed_us = in_us(str(amount), table, f"budgets.{name}")
            limits.append(f"latency budget on {name}: {allowed_us:.0f} µs ({amount}), {table.predict(ops):.0f} µs predicted")
    known["limits"] = tuple(limits)
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


def _chosen(path: Path, ops: list[str]) -> float | None:
    """The one-shot accuracy that the explanation of a choice has found of this architecture, if there is one."""
    if not path.is_file():
        return None
    with undamaged(path), path.open(newline="", encoding="utf-8") as file:
        found = (float(row["supernet_top1"]) for row in csv.DictReader(file, delimiter="\t") if row["ops"].split(" ") == ops)
        return next(found, None)


def _trained(histories: list[Path]) -> str | None:
    """The test accuracy of that of these training runs that validates best, in words; None if they are not all there."""
    runs = []
    for path in histories:
        if not path.is_file():
            return None
        with undamaged(path), path.open(newline="", encoding="utf-8") as file:
            last = {row["phase"]: row for row in csv.DictReader(file, delimiter="\t")}
            runs.append((float(last["validation"]["top1"]), float(last["test"]["top1"]), int(last["test"]["epoch"]) + 1))
    _, top1, epochs = max(runs)
    which = f"; of {len(runs)} runs the one that validates best" if len(runs) > 1 else ""
    return f"test accuracy {top1:.1%} after {epochs} epochs{which}"


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
