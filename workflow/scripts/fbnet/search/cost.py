"""What training a supernet will cost on this machine, from a few steps on noise."""

import time
from typing import NamedTuple

import numpy as np
import torch

from fbnet.data.dataset import Dataset
from fbnet.latency import LatencyTable
from fbnet.search.one_shot import OneShot
from fbnet.search.search import Search
from fbnet.settings import settings_of
from fbnet.space import SearchSpace
from fbnet.training import Loop

STEPS = {"cpu": (1, 2), "cuda": (5, 10)}  # of a phase before they are timed, on a GPU until they are replayed, and timed
COPIES = 3  # of a parameter: itself, its gradient and its momentum


class Cost(NamedTuple):
    """Parameters of a supernet; by phase the seconds of a step and the steps of an epoch; seconds of all; bytes of memory."""

    parameters: int
    step_s: dict[str, float]
    steps: dict[str, int]
    seconds: float
    bytes: float


def cost(space: SearchSpace, classes: int, values: dict, images: int, device: torch.device) -> Cost:
    """Of a training on so many images; `values` are the settings as `of_method` gives them.

    Training steps are counted, evaluation is not. Raises InputError for wrong settings.
    """
    if values.get("method") == "fbnet":  # an aim in µs would be one of the real table; no time depends on the loss
        values = values | {"loss": {"form": "paper", "alpha": 1.0, "beta": 1.0}}
    settings = settings_of(values)
    share = settings.weight_share
    dataset = _noise(space.resolution, classes, 2 + int(settings.batch_size / min(share, 1 - share)))
    if values["method"] == "fbnet":
        loop = Search(dataset, _made_up(space), settings, device)
    else:
        loop = OneShot(dataset, space, settings, device)
    step_s = {phase: _step_s(loop, phase) for phase in loop.batches}
    shares = {"weights": share, "theta": 1 - share}
    steps = {phase: int(images * shares[phase]) // settings.batch_size for phase in step_s}
    phases = [phase for epoch in range(settings.epochs) for phase in loop.phases(epoch) if phase in step_s]
    parameters = sum(parameter.numel() for parameter in loop.supernet.parameters())
    held = loop.bytes_per_image() * settings.batch_size / settings.parts + COPIES * 4 * parameters
    return Cost(parameters, step_s, steps, sum(step_s[phase] * steps[phase] for phase in phases), held)


def _step_s(loop: Loop, phase: str) -> float:
    """Seconds of a step of this phase, from the loaded images on."""
    loop.phase, loop.step = phase, 0
    loop.begin()
    images, labels = next(loop.batches[phase].training(0))
    before, timed = STEPS[loop.device.type]
    for number in range(before + timed):
        if number == before:
            _wait(loop.device)
            start = time.perf_counter()
        loop.advance(loop.batches[phase].augmented(images, **loop.settings.augment), labels)
    _wait(loop.device)
    return (time.perf_counter() - start) / timed


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _noise(size: int, classes: int, count: int) -> Dataset:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, size, size, 3), np.uint8), np.arange(count) % classes
    half = (0.5,) * 3
    return Dataset("noise", tuple(map(str, range(classes))), size, half, half, images, labels, images, labels)


def _made_up(space: SearchSpace) -> LatencyTable:
    """No time depends on what a latency is."""
    return LatencyTable(space, (1.0,) * 3, tuple(tuple(1.0 + number for number in range(len(layer))) for layer in space.layers))
