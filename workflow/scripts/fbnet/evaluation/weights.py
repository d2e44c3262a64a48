"""Where the weights of a network that is exported come from: chance, a supernet, or its own training; and how good they are."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fbnet.architecture.model import Model
from fbnet.data.batches import Batches, may_reside
from fbnet.data.dataset import read_dataset
from fbnet.errors import InputError
from fbnet.evaluation.trained import by_validation
from fbnet.network import Network, cut_out
from fbnet.provenance import file_hash
from fbnet.search import read_supernet
from fbnet.space import Architecture, make_space


def untrained(architecture: Architecture) -> Model:
    """With random weights."""
    torch.manual_seed(0)
    network = Network(architecture.space, architecture.ops, architecture.classes)
    facts, resolution = {"weights": "random: train the network before use"}, architecture.space.resolution
    return Model(architecture, network, facts, f"{_as_images(resolution, resolution)}, normalised as in its training")


def inherited(architecture: Architecture, path: Path, data: Path) -> Model:
    """With a supernet's weights, batch norm statistics recalibrated on the training images of the folder `data`.

    Raises InputError if the supernet is of another space or of other classes.
    """
    supernet, dataset = read_supernet(path), read_dataset(data)
    classes = supernet["classes"]
    if supernet["space"] != architecture.space.definition or len(classes) != architecture.classes:
        raise InputError(f"{path} is of space {supernet['space']['name']} with {len(classes)} classes: not of this one")
    if list(dataset.classes) != list(classes):
        raise InputError(f"the dataset {data} has other classes than {path} was trained on")
    device, numbers = torch.device("cpu"), np.arange(len(dataset.train_labels))
    batches = Batches(dataset, numbers, 256, device, may_reside(dataset.train_images, device))
    network = cut_out(supernet["weights"], architecture.space, architecture.ops, architecture.classes, batches.for_norms())
    facts = {"weights": "inherited from the supernet, which all architectures share; batch norm statistics recalibrated"}
    if list(architecture.ops) == supernet["ops"] and supernet["top1"] is not None:
        split = "on the architecture (validation) split"
        facts["one-shot accuracy"] = f"top-1 {supernet['top1']:.1%} with inherited weights, {split}"
    preprocessing = _preprocessing(dataset.name, dataset.resolution, dataset.train_images.shape[1], dataset.mean, dataset.std)
    return Model(architecture, network, facts, preprocessing, list(classes))


def trained(paths: Sequence[Path], data: Path) -> Model:
    """With the weights of the training run that validates best, of these (network.pt) of one network on the dataset `data`.

    Raises InputError if the runs are of several networks or of another dataset.
    """
    runs, description = by_validation(paths), data / "dataset.json"
    source, best = next(iter(runs.items()))
    sealed = file_hash(description)
    for path, run in runs.items():
        if any(run[key] != best[key] for key in ("space", "ops", "classes")):
            raise InputError(f"{path} and {source} are of different networks: give training runs of one")
        if run["data_sha256"] != sealed:
            raise InputError(f"{path} was trained on another dataset than {data}, whose mean and std would be wrong for it")
    dataset = json.loads(description.read_text(encoding="utf-8"))
    architecture = Architecture(best["name"], make_space(best["space"]), tuple(best["ops"]), len(best["classes"]))
    network = Network(architecture.space, architecture.ops, architecture.classes)
    network.load_state_dict(best["weights"])
    settings = best["settings"]
    start = "from the supernet's weights" if best["supernet_sha256"] else "from scratch"
    if taught := settings.get("teacher"):  # which is younger than the file may be
        start += f", {taught:.0%} of its loss by what the supernet's largest network says,"
    if best["entrants"]:
        chosen = f"the winner in validation accuracy of a race among {best['entrants']} architectures"
        chosen += f", which it entered by {by}" if (by := best.get("chosen_by")) else ""  # younger than the file may be
    else:
        chosen = f"the best in validation accuracy of {len(runs)} training runs" if len(runs) > 1 else "the only training run"
    facts = {
        "weights": f"trained {start} for {best['epochs']} epochs with seed {settings['seed']}: {chosen}",
        "test accuracy": f"top-1 {best['test_top1']:.2%} in this training run; nothing was chosen by the test set",
        "validation accuracy": f"top-1 {best['validation_top1']:.2%}, on {100 * settings['validation_share']:g}% of the training "
        "images, left out to choose by",
    }
    preprocessing = _preprocessing(**{key: dataset[key] for key in ("name", "resolution", "size", "mean", "std")})
    return Model(architecture, network, facts, preprocessing, list(best["classes"]))


def _as_images(resolution: int, size: int) -> str:
    """How images become input: they are kept with `size` pixels, of which networks take the middle `resolution`."""
    scaled = "resized and" if size == resolution else f"the shorter side scaled to {size} pixels,"
    return f"upright, RGB in 0–1, {scaled} centre-cropped to {resolution}×{resolution} (bilinear)"


def _preprocessing(name: str, resolution: int, size: int, mean: Sequence[float], std: Sequence[float]) -> str:
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (mean, std))
    normalised = f"minus the mean ({mean}), divided by the standard deviation ({std}) of the training images of {name}"
    return f"{_as_images(resolution, size)}, {normalised}"
