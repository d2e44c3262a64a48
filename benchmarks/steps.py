"""Steps as the workflow makes them, of a search and of training one network, for the programs that measure."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import yaml
from torch import Tensor

from fbnet.evaluation.retraining import Training
from fbnet.latency import LatencyTable
from fbnet.search import OneShot, Search
from fbnet.settings import TrainSettings, of_method, settings_of
from fbnet.space import Architecture, SearchSpace, fitting
from fbnet.training import Loop

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SEARCHES = {  # settings of a search, by what its steps are called
    "soft": {"sampling": "soft"},
    "single path": {"sampling": "single_path"},
    "soft shared": {"sampling": "soft", "shared_weights": True},
    "single path shared": {"sampling": "single_path", "shared_weights": True},
    "one shot": {"method": "one_shot", "shared_weights": True},
}
CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text(encoding="utf-8"))


def random_images(count: int, size: int) -> SimpleNamespace:
    """A dataset of noise: no time depends on what the images show."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, count)
    names = tuple("0123456789")
    about = {"name": "noise", "classes": names, "mean": MEAN, "std": STD, "resolution": size}
    return SimpleNamespace(**about, train_images=images, train_labels=labels)


def table_of(space: SearchSpace) -> LatencyTable:
    """Latencies that are made up: a candidate's number."""
    return LatencyTable(space, (100.0, 100.0, 100.0), tuple(tuple(10.0 + n for n in range(len(layer))) for layer in space.layers))


def a_search(space: SearchSpace, dataset, device: torch.device, made_for: str | None = None, **changes) -> Search | OneShot:
    """With the settings of config.yaml, but for these changes."""
    settings = of_method(CONFIG["search"] | changes)
    if settings["method"] == "one_shot":
        return OneShot(dataset, space, settings_of(settings), device, made_for=made_for)
    return Search(dataset, table_of(space), settings_of(settings), device, made_for=made_for)


def a_training(space: SearchSpace, dataset, device: torch.device, **changes) -> Training:
    """Of FBNet-A, or where the space cannot express it, of the first candidate of each layer; settings as above."""
    ops = fitting(space).get("fbnet_a") or tuple(layer[0].op for layer in space.layers)
    architecture = Architecture("fbnet_a", space, ops, len(dataset.classes))
    return Training(dataset, architecture, TrainSettings.of(CONFIG["train"] | {"seed": 0} | changes), device)


def advance(loop: Loop, images: Tensor, labels: Tensor) -> None:
    """One step, from the loaded images to the end of the optimiser's step and the means."""
    torch.manual_seed(loop.seed(2, loop.step))
    loop.advance(loop.batches[loop.phase].augmented(images, **loop.settings.augment), labels)
    loop.step += 1


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def stepping(loop: Loop, phase: str) -> Iterator[None]:
    """A step of this phase, with the loading of its images, at each `next`; at the phase's end it begins anew."""
    loop.phase = phase
    while True:
        loop.step = 0
        loop.begin()
        for images, labels in loop.batches[phase].training(loop.seed(0)):
            advance(loop, images, labels)
            yield
