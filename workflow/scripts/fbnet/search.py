"""The search: train the supernet's weights and theta in turn (FBNet, section 3.3)."""

import math
import shutil
import time
from contextlib import ExitStack
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
from fbnet.device import free_bytes
from fbnet.errors import InputError, Stopped
from fbnet.gumbel import gumbel_noise, hard_masks, soft_masks, winners
from fbnet.latency import LatencyTable
from fbnet.loss import make_loss
from fbnet.memory import bytes_per_image
from fbnet.metrics import Means
from fbnet.network import cut_out
from fbnet.ranks import Ranks
from fbnet.runtime import Progress, StopRequest, log
from fbnet.settings import Settings, learning_rate_at, temperature_at
from fbnet.supernet import Supernet

RESIDENT_SHARE = 0.25  # of the device's free memory that the images may take; larger sets stream


class Search:
    """A supernet in training with all that goes on from step to step; `state` is all that a checkpoint sees.

    Everything random follows from the seed and the place in the run (epoch, phase, step): there is no generator to save.
    """

    def __init__(
        self, dataset: Dataset, table: LatencyTable, settings: Settings, device: torch.device, ranks: Ranks | None = None
    ):
        self.settings, self.table, self.device, self.ranks = settings, table, device, ranks or Ranks()
        self.loss = make_loss(settings.loss, table.least_us, table.most_us)
        self.classes = len(dataset.classes)
        share = settings.batch_size // self.ranks.count
        part = slice(self.ranks.rank * share, (self.ranks.rank + 1) * share)
        resident = dataset.train_images.nbytes <= RESIDENT_SHARE * free_bytes(device)
        halves = split(len(dataset.train_labels), settings.weight_share, settings.seed)
        self.batches = {
            name: Batches(dataset, half, settings.batch_size, device, resident, part)
            for name, half in zip(("weights", "theta"), halves, strict=True)
        }
        for name, batches in self.batches.items():
            if not len(batches):
                raise InputError(
                    f"search.batch_size is {settings.batch_size}, but only {len(batches.indices)} training images are left "
                    f"for {name}: choose at most that, or another weight_share"
                )
        torch.manual_seed(settings.seed)
        self.supernet = Supernet(table.space, self.classes, table, settings.theta_init)
        self.supernet.to(device, memory_format=torch.channels_last)
        self.forward = self.supernet
        weights, theta = settings.weights, settings.theta
        self.optimizers = {
            "weights": torch.optim.SGD(
                self.supernet.weights(),
                **{"lr": weights["lr"], "momentum": weights["momentum"], "weight_decay": weights["weight_decay"]},
                fused=True,
            ),
            "theta": torch.optim.Adam(self.supernet.theta, theta["lr"], weight_decay=theta["weight_decay"], fused=True),
        }
        # The fused optimiser takes all momenta or none; with a single path, only some weights have a gradient.
        for parameter in self.supernet.weights():
            self.optimizers["weights"].state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.epoch, self.phase, self.step = 0, "weights", 0
        self.means, self.seconds = Means(device), 0.0
        self.history: list[dict] = []
        self.thetas: list[list[Tensor]] = []
        self.best: dict = {}

    @property
    def state(self) -> dict:
        return {
            **{"epoch": self.epoch, "phase": self.phase, "step": self.step},
            **{"means": self.means.state(self.ranks), "seconds": self.seconds},
            "supernet": self.supernet.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            **{"history": self.history, "thetas": self.thetas, "best": self.best},
        }

    @state.setter
    def state(self, state: dict) -> None:
        self.epoch, self.phase, self.step, self.seconds = (state[key] for key in ("epoch", "phase", "step", "seconds"))
        self.means = Means(self.device, **state["means"]) if self.ranks.is_first else Means(self.device)
        self.history, self.thetas, self.best = (state[key] for key in ("history", "thetas", "best"))
        self.supernet.load_state_dict(state["supernet"])
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
            log.info("Resuming in epoch %d, phase %s, after step %d.", self.epoch, self.phase, self.step)
        elif self.ranks.is_first:
            shutil.rmtree(tensorboard, ignore_errors=True)
        if self.settings.compile:
            self._compile()
        self.stop, self.saved = stop, time.monotonic()
        with ExitStack() as stack:
            self.bar = stack.enter_context(Progress(total=self._images(), initial=self._images_seen(), unit="img", desc="search"))
            writer = stack.enter_context(SummaryWriter(tensorboard, purge_step=self.epoch)) if self.ranks.is_first else None
            while self.epoch < self.settings.epochs:
                self.bar.set_description(f"epoch {self.epoch} of 0–{self.settings.epochs - 1}", refresh=False)
                phases = self._phases(self.epoch)
                for phase in phases[phases.index(self.phase) :]:
                    self.phase = phase
                    row = self._judge_argmax() if phase == "argmax" else self._train()
                    self.history.append(row)
                    self.step, self.means, self.seconds = 0, Means(self.device), 0.0
                    if writer:
                        _say(row, writer)
                self.thetas.append([theta.detach().cpu().clone() for theta in self.supernet.theta])
                self._keep_best(self.history[-1])
                self.epoch, self.phase = self.epoch + 1, "weights"
                self._save()

    def _phases(self, epoch: int) -> list[str]:
        return ["weights", "theta", "argmax"] if epoch >= self.settings.warmup_epochs else ["weights", "argmax"]

    def _images(self) -> int:
        """How many training images the whole run sees."""
        return sum(self._images_in(phase) for epoch in range(self.settings.epochs) for phase in self._phases(epoch))

    def _images_seen(self) -> int:
        phases = self._phases(self.epoch)
        before = [phase for epoch in range(self.epoch) for phase in self._phases(epoch)] + phases[: phases.index(self.phase)]
        return sum(map(self._images_in, before)) + self.step * self.settings.batch_size

    def _images_in(self, phase: str) -> int:
        return len(self.batches[phase]) * self.settings.batch_size if phase in self.batches else 0

    def _seed(self, *place: int) -> int:
        """The seed of whatever is random at a place of this phase."""
        phase = list(self.batches).index(self.phase)
        return int(np.random.SeedSequence([self.settings.seed, self.epoch, phase, *place]).generate_state(1, np.uint64)[0] >> 1)

    def _train(self) -> dict:
        """The rest of a training phase, from `step` on; a row of the history."""
        settings, batches, optimizer = self.settings, self.batches[self.phase], self.optimizers[self.phase]
        if self.phase == "weights":
            optimizer.param_groups[0]["lr"] = learning_rate_at(self.epoch, settings.epochs, settings.weights["lr"])
        temperature = temperature_at(self.epoch, settings.epochs, **settings.temperature)
        generator = torch.Generator().manual_seed(self._seed(1))
        self.host_logits = self.supernet.logits().detach().cpu()
        noise = gumbel_noise((len(batches), settings.draws_per_batch, *self.host_logits.shape), generator)
        drawn = noise if settings.sampling == "single_path" else None  # paths are chosen on the host
        noise = noise.to(self.device)
        self.supernet.learn(self.phase)
        self.supernet.train()
        started = shown = time.monotonic()
        for images, labels in batches.training(self._seed(0), self.step):
            torch.manual_seed(self._seed(2, self.step))
            images = batches.augmented(images, **settings.augment)
            try:
                self._step(images, labels, temperature, noise[self.step], None if drawn is None else drawn[self.step])
                out_of_memory = False
            except RuntimeError as error:
                out_of_memory = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
                if not out_of_memory:
                    raise
            if out_of_memory:  # the failed step's tensors have gone with its traceback
                raise InputError(self._batch_that_fits())
            self.step += 1
            self.bar.update(settings.batch_size)
            now = time.monotonic()
            stop, save, show = self.ranks.any(
                [bool(self.stop.signal), self.ranks.is_first and now - self.saved > self.checkpoint_s, now - shown > 1]
            )
            if show:  # reading the means waits for the device: once a second, not each step
                shown = now
                means = self._read_means()
                text = f"{self.phase} loss {means['loss']:.3f} top1 {means['top1']:.1%} {means['latency_us']:.0f} µs"
                self.bar.set_postfix_str(text, refresh=False)
            if stop or save:
                self.seconds, started = self.seconds + time.monotonic() - started, time.monotonic()
                self._save()
            if stop:
                raise Stopped(
                    f"Stopped by {self.stop.signal or 'a signal'} in epoch {self.epoch}, phase {self.phase}, after step "
                    f"{self.step}; all is saved in {self.checkpoint_path}, and the next call goes on from there."
                )
        means = self._read_means()
        self.seconds += time.monotonic() - started
        return self._row(means, optimizer.param_groups[0]["lr"], temperature, self._images_in(self.phase))

    def _step(self, images: Tensor, labels: Tensor, temperature: float, noise: Tensor, host_noise: Tensor | None) -> None:
        """One step of the optimiser: images [n, 3, H, W] are this process's part; noise [draws, layers, candidates].

        With the same noise on the host, a single path is drawn from each, and only that is computed.
        """
        settings, ranks, optimizer = self.settings, self.ranks, self.optimizers[self.phase]
        optimizer.zero_grad()
        paths = []
        if host_noise is not None:
            if self.phase == "theta":  # while the weights learn, theta stays, and nothing waits for the device
                self.host_logits = self.supernet.logits().detach().cpu()
            paths = [winners(self.host_logits, draw) for draw in host_noise]
        here = settings.parts // ranks.count
        for number, (part, part_labels) in enumerate(zip(images.chunk(here), labels.chunk(here), strict=True)):
            draw = (ranks.rank * here + number) * settings.draws_per_batch // settings.parts
            masks = soft_masks(self.supernet.logits(), noise[draw], temperature)
            chosen = paths[draw] if paths else None
            masks = hard_masks(masks, chosen) if chosen else masks
            with self._autocast():
                logits = self.forward(part, masks, chosen)
            ce = cross_entropy(logits.float(), part_labels)
            latency_us = self.supernet.latency_us(masks)
            loss = self.loss(ce, latency_us)
            (loss / here).backward()
            self.means.add(loss, ce, latency_us, logits, part_labels)
            self.means.check(self.step, loss)
        if self.phase == "weights" and ranks.count > 1:
            self._complete_gradients(paths)
        parameters = optimizer.param_groups[0]["params"]
        ranks.average_gradients(parameters)
        optimizer.step()
        if self.phase == "theta":
            self.means.check(self.step, torch.cat(list(self.supernet.theta)))

    def _complete_gradients(self, paths: list[list[int]]) -> None:
        """A zero gradient for what only other processes' paths have touched, so that all average the same parameters."""
        for number, layer in enumerate(self.supernet.layers):
            ops = list(layer.ops.values())
            for parameter in (parameter for path in paths for parameter in ops[path[number]].parameters()):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _batch_that_fits(self) -> str:
        """A sentence with a batch size that the device's memory allows, after a step for which it did not do."""
        settings = self.settings
        self.optimizers[self.phase].zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        masks = self.supernet.logits().softmax(dim=1)
        chosen = masks.argmax(dim=1).tolist() if settings.sampling == "single_path" else None
        with self._autocast():
            images = free_bytes(self.device) / bytes_per_image(self.supernet, masks, chosen)  # of one part at a time
        sharing = self.ranks.count if self.device.type == "cpu" else 1
        unit = max(8, settings.parts)
        fits = min(int(images / sharing) * settings.parts, settings.batch_size - 1) // unit * unit
        hint = "" if chosen else ", and sampling: single_path needs far less"
        return (
            f"search.batch_size is {settings.batch_size}, which does not fit into the memory of {self.device}: "
            f"about {max(fits, unit)} would{hint}"
        )

    def _autocast(self) -> torch.autocast:
        wanted = self.settings.precision
        if wanted == "auto":
            wanted = "bfloat16" if self.device.type == "cuda" and torch.cuda.is_bf16_supported(False) else "float32"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted == "bfloat16")

    def _compile(self) -> None:
        """Let torch.compile make the supernet's forward and backward pass, or say in the log why it cannot."""
        log.info("Compiling the supernet: minutes, unless it has been compiled before.")
        compiled = torch.compile(
            self.supernet, mode="reduce-overhead" if self.device.type == "cuda" else "default", dynamic=False
        )
        size = self.supernet.space.resolution
        count = self.settings.batch_size // self.settings.parts
        images = torch.zeros(count, 3, size, size, device=self.device).contiguous(memory_format=torch.channels_last)
        try:
            for phase in self.batches:
                self.supernet.learn(phase)
                masks = self.supernet.logits().softmax(dim=1)
                with self._autocast():
                    compiled(images, masks, None).float().sum().backward()
            self.forward = compiled
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler raises, training can do without it
            log.warning("torch.compile does not work here (%s); going on without it.", str(error).strip().splitlines()[0])
        self.supernet.zero_grad()

    def _read_means(self) -> dict:
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
                f"loss or theta is no longer finite in epoch {self.epoch}, phase {self.phase}, step {broken:.0f}: "
                f"lower search.{self.phase}.lr; {kept}"
            )
        return means

    def _save(self) -> None:
        self._read_means()  # a broken state is not saved
        state = self.state
        if self.ranks.is_first:
            checkpoint.save(self.checkpoint_path, self.fingerprint, state)
        self.saved = time.monotonic()

    def _judge_argmax(self) -> dict:
        """The most probable sub-network on theta's images: no noise, batch norms estimated anew for this path."""
        start = time.monotonic()
        ops, batches = self.supernet.architecture(), self.batches["theta"]
        latency_us = torch.tensor(self.table.predict(ops), device=self.device)
        network = cut_out(self.supernet.state_dict(), self.table.space, ops, self.classes, batches.for_norms())
        means = Means(self.device)
        with torch.no_grad():
            for images, labels in batches.plain():
                logits = network(images)
                ce = cross_entropy(logits, labels)
                means.add(self.loss(ce, latency_us), ce, latency_us, logits, labels)
        self.means, self.seconds = means, time.monotonic() - start
        return self._row(self._read_means(), math.nan, math.nan, len(batches.indices))

    def _row(self, means: dict, rate: float, temperature: float, images: int) -> dict:
        return (
            {"epoch": self.epoch, "phase": self.phase}
            | means
            | {"lr": rate, "temperature": temperature, "images_per_s": images / self.seconds, "seconds": self.seconds}
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


def _say(row: dict, writer: SummaryWriter) -> None:
    log.info(
        "epoch {epoch:3d} {phase:7s} loss {loss:.4f}  ce {ce:.4f}  top1 {top1:6.2%}  top5 {top5:6.2%}  "
        "latency {latency_us:.0f} µs  {images_per_s:.0f} images/s  {seconds:.1f} s".format(**row)
    )
    for name in ("loss", "ce", "latency_us", "top1", "top5", "lr", "temperature"):
        if not math.isnan(row[name]):
            writer.add_scalar(f"{name}/{row['phase']}", row[name], row["epoch"])
    writer.flush()
