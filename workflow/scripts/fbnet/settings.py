"""The settings of a search and of a training, and what follows from them epoch by epoch."""

import dataclasses
import math
from dataclasses import dataclass

from fbnet.errors import InputError


class _WeightsRate:
    """The learning rate of a supernet's weights."""

    @property
    def rate_warmup_epochs(self) -> float:
        """Epochs in which it rises: a twentieth of all, if nothing else is said."""
        said = self.weights["warmup_epochs"]
        return self.epochs / 20 if said is None else said

    def rate_at(self, epoch: float) -> float:
        """The learning rate at a time in epochs."""
        return ramped(self.weights["lr"], epoch, self.epochs, self.rate_warmup_epochs)


@dataclass(frozen=True)
class Settings(_WeightsRate):
    """The settings of a search; what they mean stands in config.yaml, under `search`."""

    seed: int
    epochs: int
    warmup_epochs: int
    batch_size: int
    weight_share: float
    sampling: str
    shared_weights: bool
    draws_per_batch: int
    theta_init: str
    weights: dict
    theta: dict
    temperature: dict
    loss: dict
    augment: dict
    keep: str
    gpu: int
    precision: str
    compile: bool

    @classmethod
    def of(cls, values: dict) -> "Settings":
        """From a mapping with exactly these keys. Raises InputError for an unknown or a missing one, or sizes that do not fit."""
        settings = cls(**_exactly(cls, values, "a search"))
        settings._check()
        return settings

    def _check(self) -> None:
        draws, processes = sorted((self.draws_per_batch, max(self.gpu, 1)))
        if processes % draws:
            raise InputError(
                f"search.draws_per_batch is {self.draws_per_batch} and search.gpu is {self.gpu}, but one must be a multiple "
                f"of the other"
            )
        if self.batch_size % self.parts or self.batch_size // self.parts < 2:
            raise InputError(
                f"search.batch_size is {self.batch_size}, but is divided into {self.parts} parts (the larger of draws_per_batch "
                f"and gpu): choose a multiple of {self.parts}, at least {2 * self.parts}"
            )
        if self.compile and self.sampling == "single_path":
            raise InputError(
                "search.compile is for sampling: soft; a single path is another network at every step: set it to false"
            )

    @property
    def parts(self) -> int:
        """Into how many equal parts a batch is divided: each has one draw, one process, and its own batch norm statistics."""
        return max(self.draws_per_batch, self.gpu)


@dataclass(frozen=True)
class OneShotSettings(_WeightsRate):
    """The settings of a one-shot training; what they mean stands in config.yaml, under `search`."""

    seed: int
    epochs: int
    batch_size: int
    weight_share: float
    shared_weights: bool
    paths: int
    rated: int
    weights: dict
    augment: dict
    gpu: int
    precision: str

    @classmethod
    def of(cls, values: dict) -> "OneShotSettings":
        """From a mapping with exactly these keys. Raises InputError for an unknown or a missing one, or sizes that do not fit."""
        settings = cls(**_exactly(cls, values, "a search"))
        if settings.rate_warmup_epochs >= settings.epochs:
            raise InputError(
                f"search.weights.warmup_epochs is {settings.rate_warmup_epochs}, but must be less than search.epochs "
                f"({settings.epochs})"
            )
        return settings

    @property
    def parts(self) -> int:
        """Into how many equal parts a batch is divided: each has one process, and its own batch norm statistics."""
        return max(self.gpu, 1)


METHODS = {"fbnet": Settings, "one_shot": OneShotSettings}
ONE_SHOT_KEYS = ("method", *(field.name for field in dataclasses.fields(OneShotSettings)))  # on which its training depends


def of_method(search: dict) -> dict:
    """The settings of a resolved search on which its training depends: those of its method, and that."""
    own = dataclasses.fields(METHODS[search["method"]])
    return {"method": search["method"]} | {field.name: search[field.name] for field in own}


def settings_of(values: dict) -> Settings | OneShotSettings:
    """The settings of a method from what `of_method` gives. Raises InputError."""
    own = dict(values)
    if (method := own.pop("method", None)) not in METHODS:
        raise InputError(f"a search's method is {method!r}, but must be one of {', '.join(METHODS)}")
    return METHODS[method].of(own)


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a network's training from scratch; what they mean stands in config.yaml, under `train`."""

    seed: int
    epochs: int
    warmup_epochs: float
    batch_size: int
    validation_share: float
    start: str
    teacher: float
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: str
    drops: tuple[int, ...]
    label_smoothing: float
    ema: float
    dropout: float | None
    augment: dict
    gpu: int
    precision: str

    parts = 1  # a batch is one step of one process

    @classmethod
    def of(cls, values: dict) -> "TrainSettings":
        """From a mapping with exactly these keys. Raises InputError for an unknown or a missing one, or a warm-up too long."""
        settings = cls(**_exactly(cls, values, "a training"))
        if settings.warmup_epochs >= settings.epochs:
            raise InputError(
                f"train.warmup_epochs is {settings.warmup_epochs}, but must be less than train.epochs ({settings.epochs})"
            )
        if settings.nesterov and not settings.momentum:
            raise InputError("train.nesterov is true, but needs a momentum: set train.momentum above 0, or nesterov to false")
        return settings

    def rate_at(self, epoch: float) -> float:
        """The learning rate at a time in epochs: a linear warm-up, then a cosine to 0, or a tenth from each of `drops` on."""
        if self.schedule == "steps" and epoch >= self.warmup_epochs:
            return self.lr * 0.1 ** sum(epoch >= drop for drop in self.drops)
        return ramped(self.lr, epoch, self.epochs, self.warmup_epochs)


def _exactly(kind: type, values: dict, what: str) -> dict:
    names = {field.name for field in dataclasses.fields(kind)}
    if values.keys() != names:
        wrong = ", ".join(sorted(names ^ values.keys()))
        raise InputError(f"the settings of {what} are {', '.join(sorted(names))}; wrong or missing: {wrong}")
    return values


def temperature_at(epoch: int, epochs: int, start: float, decay: float) -> float:
    """The Gumbel-softmax temperature: from `start` in epoch 0 to start · exp(−decay) in the last, whatever the run's length."""
    return start * math.exp(-decay * epoch / max(epochs - 1, 1))


def ramped(top: float, epoch: float, epochs: int, warmup_epochs: float) -> float:
    """A learning rate that rises linearly to `top` over the warm-up, then falls towards 0 by a cosine."""
    if epoch < warmup_epochs:
        return top * epoch / warmup_epochs
    return learning_rate_at(epoch - warmup_epochs, epochs - warmup_epochs, top)


def learning_rate_at(epoch: float, epochs: float, start: float) -> float:
    """Cosine from `start` towards 0 (Loshchilov & Hutter 2017, without restarts)."""
    return start * (1 + math.cos(math.pi * epoch / epochs)) / 2
