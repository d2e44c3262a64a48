"""Training from step to step: epochs of phases, progress, checkpoints, and exact resumption wherever it was stopped."""

import math
import platform
import shutil
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from fbnet.data.batches import Batches
from fbnet.errors import InputError, Stopped
from fbnet.memory import free_bytes, is_out_of_memory
from fbnet.provenance import versions
from fbnet.runtime import Progress, StopRequest, log
from fbnet.training import checkpoint
from fbnet.training.metrics import Means
from fbnet.training.ranks import Ranks


class Loop(ABC):
    """Epochs of phases; a phase in `batches` trains, any other evaluates. Subclasses say what a step and an evaluation are.

    `state` is all that a checkpoint sees. Everything random follows from the seed and the place in the run (epoch, phase,
    step): there is no generator to save. `key` is where the settings stand in the configuration, for sentences about them.
    Epochs and steps are numbered from 0 here and in tables; messages count them from 1.
    """

    LEGEND: str

    def __init__(
        self,
        key: str,
        settings,
        device: torch.device,
        ranks: Ranks,
        batches: dict[str, Batches],
        modules: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
    ):
        self.key, self.settings, self.device, self.ranks = key, settings, device, ranks
        self.batches, self.modules, self.optimizers = batches, modules, optimizers
        for name, one in batches.items():
            if not len(one):
                raise InputError(
                    f"{key}.batch_size is {settings.batch_size}, but only {len(one.indices)} training images are left for "
                    f"{name}: choose at most that, or another share"
                )
        self.epoch, self.phase, self.step = 0, next(iter(batches)), 0
        self.means, self.seconds = Means(device), 0.0
        self.history: list[dict] = []

    # What a subclass says

    @abstractmethod
    def phases(self, epoch: int) -> list[str]:
        """The phases of an epoch, in order; the first is the same in each."""

    @abstractmethod
    def begin(self) -> float:
        """Set up what holds for a training phase, also where it resumes; the Gumbel temperature, nan if there is none."""

    @abstractmethod
    def advance(self, images: Tensor, labels: Tensor) -> None:
        """One step of the phase's optimiser on this process's part of a batch: normalised [n, 3, H, W], labels [n]."""

    @abstractmethod
    def evaluate(self) -> int:
        """Take a phase that does not train into `means`; how many images it saw."""

    @abstractmethod
    def introduce(self) -> str:
        """In a sentence, which images the run is given."""

    @abstractmethod
    def describe(self, rows: dict[str, dict]) -> str:
        """An epoch in a line, from the rows of its phases by name; `LEGEND` says what stands there."""

    def end_epoch(self) -> None:  # noqa: B027 — nothing, unless a subclass has something to do
        """Whatever follows an epoch, before it is saved."""

    @abstractmethod
    def bytes_per_image(self) -> float:
        """The memory that a step takes for each image of a part."""

    def rate_key(self) -> str:
        """Where the phase's learning rate stands in the configuration."""
        return f"{self.key}.lr"

    # What all do alike

    @property
    def state(self) -> dict:
        return {
            **{"epoch": self.epoch, "phase": self.phase, "step": self.step},
            **{"means": self.means.state(self.ranks), "seconds": self.seconds, "history": self.history},
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    @state.setter
    def state(self, state: dict) -> None:
        self.epoch, self.phase, self.step, self.seconds = (state[key] for key in ("epoch", "phase", "step", "seconds"))
        self.means = Means(self.device, **state["means"]) if self.ranks.is_first else Means(self.device)
        self.history = state["history"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def run(self, checkpoint_path: Path, fingerprint: str, tensorboard: Path, minutes: float, stop: StopRequest) -> None:
        """Train to the last epoch, from the checkpoint of this fingerprint if there is one.

        A checkpoint follows each epoch, and within it comes one after so many `minutes`. Raises Stopped after a signal,
        when the state is saved, and InputError where training cannot go on.
        """
        self.checkpoint_path, self.fingerprint, self.checkpoint_s = checkpoint_path, fingerprint, 60 * minutes
        state = checkpoint.load(checkpoint_path, fingerprint)
        if state:
            self.state = state
            log.info("Resuming in %s, phase %s, after step %d.", self.counted, self.phase, self.step)
        elif self.ranks.is_first:
            shutil.rmtree(tensorboard, ignore_errors=True)
        self.stop, self.saved = stop, time.monotonic()
        with ExitStack() as stack:
            self.bar = stack.enter_context(Progress(total=self._images(), initial=self._images_seen(), unit="images"))
            writer = stack.enter_context(SummaryWriter(tensorboard, purge_step=self.epoch)) if self.ranks.is_first else None
            log.info("%s", self.introduce())
            if not all(one.resident for one in self.batches.values()):
                log.info("They would take more than a quarter of the free memory: each batch is read from disk.")
            log.info("Each epoch: %s | speed of training, time.", self.LEGEND)
            while self.epoch < self.settings.epochs:
                self.bar.set_description(f"{self.counted}, whole run", refresh=False)
                phases = self.phases(self.epoch)
                for phase in phases[phases.index(self.phase) :]:
                    self.phase = phase
                    row = self._train_or_evaluate()
                    self.history.append(row)
                    self.step, self.means, self.seconds = 0, Means(self.device), 0.0
                    if writer:
                        _plot(row, writer)
                self._log_epoch()
                self.end_epoch()
                self.epoch, self.phase = self.epoch + 1, phases[0]
                self._save()

    def history_rows(self) -> pd.DataFrame:
        """A row for each phase of each epoch, epochs from 0: latency in µs, accuracies in [0, 1]."""
        return pd.DataFrame(self.history)

    @property
    def environment(self) -> dict:
        """Where the run took place, for the provenance of its result."""
        return {"versions": versions(), "host": platform.node(), "device": str(self.device)}

    @property
    def counted(self) -> str:
        """The epoch in words, counted from 1."""
        return f"epoch {self.epoch + 1}/{self.settings.epochs}"

    def autocast(self) -> torch.autocast:
        """The precision that the settings ask for."""
        wanted = self.settings.precision
        if wanted == "auto":
            wanted = "bfloat16" if self.device.type == "cuda" and torch.cuda.is_bf16_supported(False) else "float32"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted == "bfloat16")

    def seed(self, *place: int) -> int:
        """The seed of whatever is random at a place of this phase."""
        phase = list(self.batches).index(self.phase)
        return int(np.random.SeedSequence([self.settings.seed, self.epoch, phase, *place]).generate_state(1, np.uint64)[0] >> 1)

    def batch_that_fits(self) -> str:
        """A sentence with a batch size that the device's memory allows, after a step for which it did not do."""
        settings = self.settings
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            with self.autocast():
                images = free_bytes(self.device) / self.bytes_per_image()  # of one part at a time
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            images = 0  # not even the few that are tried
        sharing = self.ranks.count if self.device.type == "cpu" else 1
        parts = settings.parts if self.phase in self.batches else 1  # evaluation does not divide its batches
        unit = math.lcm(8, 2 * settings.parts)
        fits = min(int(images / sharing) * parts, settings.batch_size - 1) // unit * unit
        advice = (
            f"about {fits} would"
            if fits
            else "a smaller one would hardly do either: take a device with more memory, or one that nobody else uses"
        )
        return f"{self.key}.batch_size is {settings.batch_size}, which does not fit into the memory of {self.device}: {advice}"

    def _images(self) -> int:
        """How many training images the whole run sees."""
        return sum(self._images_in(phase) for epoch in range(self.settings.epochs) for phase in self.phases(epoch))

    def _images_seen(self) -> int:
        phases = self.phases(self.epoch)
        before = [phase for epoch in range(self.epoch) for phase in self.phases(epoch)] + phases[: phases.index(self.phase)]
        return sum(map(self._images_in, before)) + self.step * self.settings.batch_size

    def _images_in(self, phase: str) -> int:
        return len(self.batches[phase]) * self.settings.batch_size if phase in self.batches else 0

    def _train_or_evaluate(self) -> dict:
        """What is left of the phase; a row of the history. Raises InputError where the memory does not do for it."""
        try:
            return self._train() if self.phase in self.batches else self._evaluate()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise InputError(self.batch_that_fits())  # here, where the failed step's tensors have gone with its traceback

    def _train(self) -> dict:
        """The rest of a training phase, from `step` on; a row of the history."""
        settings, batches, optimizer = self.settings, self.batches[self.phase], self.optimizers[self.phase]
        temperature = self.begin()
        started = shown = time.monotonic()
        for images, labels in batches.training(self.seed(0), self.step):
            torch.manual_seed(self.seed(2, self.step))
            self.advance(batches.augmented(images, **settings.augment), labels)
            self.step += 1
            self.bar.update(settings.batch_size)
            now = time.monotonic()
            stop, save, show = self.ranks.any(
                [bool(self.stop.signal), self.ranks.is_first and now - self.saved > self.checkpoint_s, now - shown > 1]
            )
            if show:  # reading the means waits for the device: once a second, not each step
                shown = now
                means = self.read_means()
                text = f"phase {self.phase}: loss {means['loss']:.3f}, accuracy {means['top1']:.1%}"
                self.bar.set_postfix_str(text, refresh=False)
            if stop or save:
                self.seconds, started = self.seconds + time.monotonic() - started, time.monotonic()
                self._save()
            if stop:
                raise Stopped(
                    f"Stopped by {self.stop.signal or 'a signal'} in {self.counted}, phase {self.phase}, after step "
                    f"{self.step}; all is saved in {self.checkpoint_path}, and the next call goes on from there."
                )
        means = self.read_means()
        self.seconds += time.monotonic() - started
        return self._row(means, float(optimizer.param_groups[0]["lr"]), temperature, self._images_in(self.phase))

    def _evaluate(self) -> dict:
        start = time.monotonic()
        with torch.no_grad():
            images = self.evaluate()
        means = self.read_means()
        self.seconds = time.monotonic() - start
        return self._row(means, math.nan, math.nan, images)

    def _row(self, means: dict, rate: float, temperature: float, images: int) -> dict:
        return (
            {"epoch": self.epoch, "phase": self.phase}
            | means
            | {"lr": rate, "temperature": temperature, "images_per_s": images / self.seconds, "seconds": self.seconds}
        )

    def read_means(self) -> dict:
        """The means so far. Raises InputError if a step was not finite."""
        means = self.means.read(self.ranks)
        broken = means.pop("broken")
        if math.isfinite(broken):
            kept = (
                f"the checkpoint {self.checkpoint_path} is of before"
                if self.checkpoint_path.exists()
                else "there is no checkpoint yet"
            )
            raise InputError(
                f"training is no longer finite in {self.counted}, phase {self.phase}, step {broken + 1:.0f}: "
                f"lower {self.rate_key()}; {kept}"
            )
        return means

    def _log_epoch(self) -> None:
        rows = {row["phase"]: row for row in self.history if row["epoch"] == self.epoch}
        trained = sum(row["seconds"] for phase, row in rows.items() if phase in self.batches)
        speed = sum(map(self._images_in, rows)) / trained
        seconds = sum(row["seconds"] for row in rows.values())
        log.info("%s: %s | %.0f images/s, %.1f s", self.counted, self.describe(rows), speed, seconds)

    def _save(self) -> None:
        self.read_means()  # a broken state is not saved
        state = self.state
        if self.ranks.is_first:
            checkpoint.save(self.checkpoint_path, self.fingerprint, state)
        self.saved = time.monotonic()


def _plot(row: dict, writer: SummaryWriter) -> None:
    for name in ("loss", "ce", "latency_us", "top1", "top5", "lr", "temperature"):
        if not math.isnan(row[name]):
            writer.add_scalar(f"{name}/{row['phase']}", row[name], row["epoch"])
    writer.flush()
