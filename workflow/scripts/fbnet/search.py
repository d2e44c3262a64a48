"""The search: train the supernet's weights and theta in turn (FBNet, section 3.3)."""

import dataclasses
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.tensorboard import SummaryWriter

from fbnet import checkpoint
from fbnet.batches import Batches, split
from fbnet.dataset import Dataset
from fbnet.errors import InputError
from fbnet.latency import LatencyTable
from fbnet.loss import make_loss
from fbnet.network import cut_out
from fbnet.runtime import Progress, log
from fbnet.supernet import Supernet, learning


@dataclass(frozen=True)
class Settings:
    """The settings of a search; what they mean stands in config.yaml, under `search`."""

    seed: int
    epochs: int
    warmup_epochs: int
    batch_size: int
    weight_share: float
    theta_init: str
    weights: dict
    theta: dict
    temperature: dict
    loss: dict
    augment: dict
    keep: str

    @classmethod
    def of(cls, values: dict) -> "Settings":
        """From a mapping with exactly these keys. Raises InputError for an unknown or a missing one."""
        names = {field.name for field in dataclasses.fields(cls)}
        if values.keys() != names:
            wrong = ", ".join(sorted(names ^ values.keys()))
            raise InputError(f"the settings of a search are {', '.join(sorted(names))}; wrong or missing: {wrong}")
        return cls(**values)


def temperature_at(epoch: int, epochs: int, start: float, decay: float) -> float:
    """The Gumbel-softmax temperature: from `start` in epoch 0 to start · exp(−decay) in the last, whatever the run's length."""
    return start * math.exp(-decay * epoch / max(epochs - 1, 1))


def learning_rate_at(epoch: int, epochs: int, start: float) -> float:
    """Cosine from `start` towards 0 (Loshchilov & Hutter 2017, without restarts)."""
    return start * (1 + math.cos(math.pi * epoch / epochs)) / 2


class Search:
    """A supernet in training with all that goes on from epoch to epoch; `state` is all that a checkpoint sees."""

    def __init__(self, dataset: Dataset, table: LatencyTable, settings: Settings, device: torch.device):
        self.settings, self.table, self.device = settings, table, device
        self.loss = make_loss(settings.loss, table.least_us, table.most_us)
        self.classes = len(dataset.classes)
        halves = split(len(dataset.train_labels), settings.weight_share, settings.seed)
        self.weight_batches, self.theta_batches = (Batches(dataset, half, settings.batch_size, device) for half in halves)
        for name, batches in (("weights", self.weight_batches), ("theta", self.theta_batches)):
            if not len(batches):
                raise InputError(
                    f"search.batch_size is {settings.batch_size}, but only {len(batches.indices)} training images are left "
                    f"for {name}: choose at most that, or another weight_share"
                )
        torch.manual_seed(settings.seed)
        self.supernet = Supernet(table.space, self.classes, table, settings.theta_init)
        self.supernet.to(device, memory_format=torch.channels_last)
        weights, theta = settings.weights, settings.theta
        self.optimizers = {
            "weights": torch.optim.SGD(
                self.supernet.weights(), weights["lr"], momentum=weights["momentum"], weight_decay=weights["weight_decay"]
            ),
            "theta": torch.optim.Adam(self.supernet.theta, theta["lr"], weight_decay=theta["weight_decay"]),
        }
        self.epoch = 0
        self.history: list[dict] = []
        self.thetas: list[list[Tensor]] = []
        self.best: dict = {}

    @property
    def state(self) -> dict:
        return {
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "history": self.history,
            "thetas": self.thetas,
            "best": self.best,
        }

    @state.setter
    def state(self, state: dict) -> None:
        self.epoch, self.history, self.thetas, self.best = (state[k] for k in ("epoch", "history", "thetas", "best"))
        self.supernet.load_state_dict(state["supernet"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def run(self, checkpoint_path: Path, fingerprint: str, tensorboard: Path) -> None:
        """Train to the last epoch, from the checkpoint of this fingerprint if there is one; a checkpoint after each epoch."""
        state = checkpoint.load(checkpoint_path, fingerprint)
        if state:
            self.state = state
            log.info("Resuming after epoch %d from %s.", self.epoch - 1, checkpoint_path)
        else:
            shutil.rmtree(tensorboard, ignore_errors=True)
        images = [self._images(epoch) for epoch in range(self.settings.epochs)]
        with (
            SummaryWriter(tensorboard, purge_step=self.epoch) as writer,
            Progress(total=sum(images), initial=sum(images[: self.epoch]), unit="img", desc="search") as bar,
        ):
            while self.epoch < self.settings.epochs:
                bar.set_description(f"epoch {self.epoch} of 0–{self.settings.epochs - 1}", refresh=False)
                for row in self._train_epoch(bar):
                    _say(row, writer)
                    self.history.append(row)
                self.thetas.append([theta.detach().cpu().clone() for theta in self.supernet.theta])
                self._keep_best(self.history[-1])
                self.epoch += 1
                checkpoint.save(checkpoint_path, fingerprint, self.state)

    def _images(self, epoch: int) -> int:
        """How many training images an epoch sees."""
        steps = len(self.weight_batches) + (len(self.theta_batches) if epoch >= self.settings.warmup_epochs else 0)
        return steps * self.settings.batch_size

    def _train_epoch(self, bar: Progress) -> Iterator[dict]:
        """The phases of an epoch, a row of the history each. Everything random follows from seed and epoch."""
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, self.epoch]).generate_state(1)[0]))
        rate = learning_rate_at(self.epoch, self.settings.epochs, self.settings.weights["lr"])
        self.optimizers["weights"].param_groups[0]["lr"] = rate
        yield self._train("weights", self.weight_batches, bar)
        if self.epoch >= self.settings.warmup_epochs:
            yield self._train("theta", self.theta_batches, bar)
        yield self._judge_argmax()

    def _train(self, phase: str, batches: Batches, bar: Progress) -> dict:
        start = shown = time.monotonic()
        optimizer, augment = self.optimizers[phase], self.settings.augment
        temperature = temperature_at(self.epoch, self.settings.epochs, **self.settings.temperature)
        means = Means(self.device)
        with learning(self.supernet, phase):
            for images, labels in batches.training(augment["crop_padding"], augment["flip"]):
                logits, latency_us = self.supernet(images, temperature)
                ce = cross_entropy(logits, labels)
                loss = self.loss(ce, latency_us)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                means.add(loss, ce, latency_us, logits, labels)
                if time.monotonic() - shown > 1:  # reading the means waits for the device: once a second, not each step
                    shown = time.monotonic()
                    now = means.read()
                    bar.set_postfix_str(
                        f"{phase} loss {now['loss']:.3f} top1 {now['top1']:.1%} {now['latency_us']:.0f} µs", refresh=False
                    )
                bar.update(len(labels))
        row = means.read()
        if not math.isfinite(row["loss"]):
            raise InputError(
                f"the loss is {row['loss']} in epoch {self.epoch}, phase {phase}: lower search.{phase}.lr; "
                f"the checkpoint of the epoch before is kept"
            )
        return self._row(phase, row, optimizer.param_groups[0]["lr"], temperature, start, len(batches) * batches.batch_size)

    def _judge_argmax(self) -> dict:
        """The most probable sub-network on theta's images: no noise, batch norms estimated anew for this path."""
        start = time.monotonic()
        ops = self.supernet.architecture()
        latency_us = torch.tensor(self.table.predict(ops), device=self.device)
        network = cut_out(self.supernet.state_dict(), self.table.space, ops, self.classes, self.weight_batches.for_norms())
        means = Means(self.device)
        with torch.no_grad():
            for images, labels in self.theta_batches.plain():
                logits = network(images)
                ce = cross_entropy(logits, labels)
                means.add(self.loss(ce, latency_us), ce, latency_us, logits, labels)
        return self._row("argmax", means.read(), float("nan"), float("nan"), start, len(self.theta_batches.indices))

    def _row(self, phase: str, means: dict, rate: float, temperature: float, start: float, images: int) -> dict:
        seconds = time.monotonic() - start
        return (
            {"epoch": self.epoch, "phase": phase}
            | means
            | {"lr": rate, "temperature": temperature, "images_per_s": images / seconds, "seconds": seconds}
        )

    def _keep_best(self, judged: dict) -> None:
        """With `keep: best`, remember the supernet whose argmax network has the least loss, latency included."""
        theta_moves = self.epoch >= self.settings.warmup_epochs
        if self.settings.keep == "best" and theta_moves and judged["loss"] < self.best.get("loss", math.inf):
            weights = {name: value.cpu().clone() for name, value in self.supernet.state_dict().items()}
            self.best = {"epoch": self.epoch, "loss": judged["loss"], "weights": weights}

    def result(self) -> dict:
        """What was found: `epoch`, `weights` (state dict), `theta` (a list, layer by layer), `ops` and `top1` of argmax."""
        weights = self.best["weights"] if self.best else self.supernet.state_dict()
        epoch = self.best["epoch"] if self.best else self.epoch - 1
        theta = self.thetas[epoch]
        ops = [layer[int(row.argmax())].op for layer, row in zip(self.table.space.layers, theta, strict=True)]
        [judged] = [row for row in self.history if row["epoch"] == epoch and row["phase"] == "argmax"]
        cpu = {name: value.cpu().contiguous() for name, value in weights.items()}
        return {"epoch": epoch, "weights": cpu, "theta": theta, "ops": ops, "top1": judged["top1"]}

    def theta_rows(self) -> pd.DataFrame:
        """Theta and its softmax after every epoch: columns epoch, layer, op, theta, probability."""
        return pd.DataFrame(
            [
                (epoch, cell.layer, cell.op, logit, probability)
                for epoch, thetas in enumerate(self.thetas)
                for layer, theta in zip(self.table.space.layers, thetas, strict=True)
                for cell, logit, probability in zip(layer, theta.tolist(), theta.softmax(0).tolist(), strict=True)
            ],
            columns=["epoch", "layer", "op", "theta", "probability"],
        )

    def history_rows(self) -> pd.DataFrame:
        """A row for each phase of each epoch: latency in µs, accuracies in [0, 1]."""
        return pd.DataFrame(self.history)


class Means:
    """Running means over images, kept on the device: loss, ce, latency_us, top1, top5 (or fewer classes)."""

    NAMES = ("loss", "ce", "latency_us", "top1", "top5")

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(len(self.NAMES), device=device)
        self.count = 0

    def add(self, loss: Tensor, ce: Tensor, latency_us: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: scalars, logits [N, classes], labels [N]."""
        with torch.no_grad():
            ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            hits = ranked[:, 0].float().mean(), ranked.any(dim=1).float().mean()
            self.sums += torch.stack([loss, ce, latency_us, *hits]) * len(labels)
            self.count += len(labels)

    def read(self) -> dict[str, float]:
        """The means so far; waits for the device."""
        return dict(zip(self.NAMES, (self.sums / self.count).tolist(), strict=True))


def _say(row: dict, writer: SummaryWriter) -> None:
    log.info(
        "epoch {epoch:3d} {phase:7s} loss {loss:.4f}  ce {ce:.4f}  top1 {top1:6.2%}  top5 {top5:6.2%}  "
        "latency {latency_us:.0f} µs  {images_per_s:.0f} images/s  {seconds:.1f} s".format(**row)
    )
    for name in ("loss", "ce", "latency_us", "top1", "top5", "lr", "temperature"):
        if not math.isnan(row[name]):
            writer.add_scalar(f"{name}/{row['phase']}", row[name], row["epoch"])
    writer.flush()
