"""The search: train the supernet's weights and theta in turn (FBNet, section 3.3)."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fbnet.data.batches import Batches, may_reside, split
from fbnet.data.dataset import Dataset
from fbnet.errors import InputError
from fbnet.latency import LatencyTable
from fbnet.memory import bytes_per_image, is_out_of_memory
from fbnet.network import cut_out
from fbnet.runtime import log
from fbnet.search.gumbel import gumbel_noise, hard_masks, one_hot, soft_masks, winners
from fbnet.search.loss import make_loss
from fbnet.search.saved import write_supernet
from fbnet.search.supernet import StochasticSupernet
from fbnet.settings import Settings, temperature_at
from fbnet.training import Loop, Ranks, Replay


class Search(Loop):
    """A supernet in training: its weights, then theta, then the argmax architecture is evaluated with inherited weights.

    The steps are shaped for the kernels of the device, or for those of which `made_for` tells.
    """

    LEGEND = (
        "loss and accuracy in training (weights split) | latency, expected under theta and of the argmax architecture | "
        "one-shot accuracy of that, with inherited weights (architecture split)"
    )

    def __init__(
        self,
        dataset: Dataset,
        table: LatencyTable,
        settings: Settings,
        device: torch.device,
        ranks: Ranks | None = None,
        made_for: str | None = None,
    ):
        ranks = ranks or Ranks()
        table.space.check_method("fbnet")
        self.table = table
        self.loss = make_loss(settings.loss, table.least_us, table.most_us)
        self.classes = len(dataset.classes)
        share = settings.batch_size // ranks.count
        part = slice(ranks.rank * share, (ranks.rank + 1) * share)
        on_device = may_reside(dataset.train_images, device)
        halves = split(dataset.train_labels, settings.weight_share, settings.seed)
        batches = {
            name: Batches(dataset, half, settings.batch_size, device, on_device, part)
            for name, half in zip(("weights", "theta"), halves, strict=True)
        }
        torch.manual_seed(settings.seed)
        self.supernet = StochasticSupernet(
            table.space, self.classes, table, settings.theta_init, made_for or device.type, settings.shared_weights
        )
        self.supernet.to(device, memory_format=torch.channels_last)
        if settings.sampling == "soft":
            self.supernet.flatten()
        self.forward = self.supernet
        weights, theta = settings.weights, settings.theta
        optimizers = {
            "weights": torch.optim.SGD(
                self.supernet.weights(),
                **{"lr": weights["lr"], "momentum": weights["momentum"], "weight_decay": weights["weight_decay"]},
                fused=True,
            ),
            "theta": torch.optim.Adam(self.supernet.theta, theta["lr"], weight_decay=theta["weight_decay"], fused=True),
        }
        if settings.sampling == "single_path":
            # The fused optimiser takes all momenta or none, but only some weights have a gradient.
            for parameter in self.supernet.weights():
                optimizers["weights"].state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        super().__init__("search", settings, device, ranks, batches, {"supernet": self.supernet}, optimizers)
        self.thetas: list[list[Tensor]] = []
        self.best: dict = {}
        self.rate, self.temperature = torch.zeros((), device=device), torch.ones((), device=device)
        # The path of a single path differs from step to step; and what torch.compile makes has graphs of its own.
        same = settings.sampling == "soft" and not settings.compile and ranks.count == 1
        self.replay = Replay(self.update, usable=device.type == "cuda" and same)
        if settings.compile:
            self._compile()

    @property
    def state(self) -> dict:
        return Loop.state.fget(self) | {"thetas": self.thetas, "best": self.best}

    @state.setter
    def state(self, state: dict) -> None:
        Loop.state.fset(self, state)
        self.thetas, self.best = state["thetas"], state["best"]

    def phases(self, epoch: int) -> list[str]:
        return ["weights", "theta", "argmax"] if epoch >= self.settings.warmup_epochs else ["weights", "argmax"]

    def begin(self) -> float:
        """Sample for the whole phase; while the weights learn, theta stays, so that its masks are made here, all at once."""
        settings = self.settings
        self.supernet.learn(self.phase)
        self.supernet.train()
        if self.phase == "weights":
            self.rate.fill_(self.settings.rate_at(self.epoch))
            self.optimizers["weights"].param_groups[0]["lr"] = self.rate
        temperature = temperature_at(self.epoch, settings.epochs, **settings.temperature)
        self.temperature.fill_(temperature)
        generator = torch.Generator().manual_seed(self.seed(1))
        logits = self.supernet.logits().detach()
        shape = (len(self.batches[self.phase]), settings.draws_per_batch, *logits.shape)
        self.noise = gumbel_noise(shape, generator).to(self.device)
        if self.phase == "weights" and settings.sampling == "single_path":
            chosen = winners(logits, self.noise)
            self.masks = one_hot(chosen, self.noise)
            self.paths = chosen.tolist()  # the host must know them: it waits, once a phase
        elif self.phase == "weights":
            self.masks = soft_masks(logits, self.noise, self.temperature)
        return temperature

    def advance(self, images: Tensor, labels: Tensor) -> None:
        if self.phase == "weights" and self.epoch < self.settings.rate_warmup_epochs:  # then it stays for an epoch
            self.rate.fill_(self.settings.rate_at(self.epoch + (self.step + 1) / len(self.batches["weights"])))
        samples = (self.masks if self.phase == "weights" else self.noise)[self.step]
        if self.settings.sampling == "single_path":
            # theta has moved: which path comes next, the host must wait for
            logits = self.supernet.logits().detach()
            paths = self.paths[self.step] if self.phase == "weights" else winners(logits, samples).tolist()
            outcomes = self.update(images, labels, samples, paths)
        else:
            outcomes = self.replay(self.phase, self.optimizers[self.phase], images, labels, samples)
        for outcome in outcomes:
            self.means.add(*outcome)
            self.means.check(self.step, outcome[0])
        if self.phase == "theta":
            self.means.check(self.step, torch.cat(list(self.supernet.theta)))

    def rate_key(self) -> str:
        return f"search.{self.phase}.lr"

    def update(
        self, images: Tensor, labels: Tensor, samples: Tensor, paths: Sequence[list[int]] = ()
    ) -> list[tuple[Tensor, ...]]:
        """One step of the optimiser: images [n, 3, H, W] are this process's part; `samples` [draws, layers, candidates].

        Samples are masks while the weights learn, Gumbel noise while theta does; of a single path also `paths`, the numbers of
        the candidates. Nothing here depends on a number that changes from step to step and is not in a tensor. Returns what
        `Means.add` takes, for each part of the batch.
        """
        settings, ranks, optimizer = self.settings, self.ranks, self.optimizers[self.phase]
        optimizer.zero_grad()
        here, outcomes = settings.parts // ranks.count, []
        for number, (part, part_labels) in enumerate(zip(images.chunk(here), labels.chunk(here), strict=True)):
            at = (ranks.rank * here + number) * settings.draws_per_batch // settings.parts
            chosen = paths[at] if paths else None
            masks, weighs = self._masks(samples[at], chosen)
            with self.autocast():
                logits = self.forward(part, weighs, chosen)
            ce = cross_entropy(logits.float(), part_labels)
            latency_us = self.supernet.latency_us(masks)
            loss = self.loss(ce, latency_us)
            (loss / here).backward()
            outcomes.append(tuple(value.detach() for value in (loss, ce, latency_us, logits, part_labels)))
        if self.phase == "weights" and ranks.count > 1:
            self._complete_gradients(paths)
        ranks.average_gradients(optimizer.param_groups[0]["params"])
        optimizer.step()
        return outcomes

    def _masks(self, sample: Tensor, chosen: list[int] | None) -> tuple[Tensor, Tensor | None]:
        """Masks [layers, candidates] of a sample, for the latency, and those by which the supernet weighs what it computes."""
        if self.phase == "weights":
            return sample, None if chosen else sample  # a path's own mask is 1
        logits = self.supernet.logits()
        soft = soft_masks(logits, sample, self.temperature)
        if not chosen:
            return soft, soft
        won = winners(logits, sample)
        hard = hard_masks(soft, won)
        return hard, hard.gather(1, won[:, None]).squeeze(1)

    def _complete_gradients(self, paths: list[list[int]]) -> None:
        """A zero gradient for what only other processes' paths have touched, so that all average the same parameters."""
        for number, layer in enumerate(self.supernet.layers):
            owners = {layer.owners[path[number]] for path in paths}
            for parameter in (parameter for owner in owners for parameter in layer.ops[owner].parameters()):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def bytes_per_image(self) -> float:
        masks = self.supernet.logits().softmax(dim=1)
        chosen = masks.argmax(dim=1).tolist() if self.settings.sampling == "single_path" else None
        weighs = None if chosen else masks
        return bytes_per_image(lambda images: self.supernet(images, weighs, chosen), self.table.space.resolution, self.device)

    def batch_that_fits(self) -> str:
        hint = "" if self.settings.sampling == "single_path" else ", and sampling: single_path needs far less"
        return super().batch_that_fits() + (hint if self.phase in self.batches else "")

    def _compile(self) -> None:
        """Let torch.compile make the supernet's forward and backward pass, or say in the log why it cannot."""
        log.info("Compiling the supernet: minutes, unless it has been compiled before.")
        # With reduce-overhead a part's gradients lie in memory that the forward pass of the next part takes again.
        here = self.settings.parts // self.ranks.count
        compiled = torch.compile(
            self.supernet, mode="reduce-overhead" if self.device.type == "cuda" and here == 1 else "default", dynamic=False
        )
        size = self.supernet.space.resolution
        count = self.settings.batch_size // self.settings.parts
        images = torch.zeros(count, 3, size, size, device=self.device).contiguous(memory_format=torch.channels_last)
        try:
            for phase in self.batches:
                self.supernet.learn(phase)
                masks = self.supernet.logits().softmax(dim=1)
                with self.autocast():
                    compiled(images, masks, None).float().sum().backward()
            self.forward, failed = compiled, None
        except Exception as error:  # whatever a compiler raises, training can do without it
            failed = str(error).strip().splitlines()[:1] or [type(error).__name__]
            no_memory = is_out_of_memory(error)
        if failed and no_memory:
            raise InputError(self.batch_that_fits())
        if failed:
            log.warning("torch.compile does not work here (%s); going on without it.", *failed)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def evaluate(self) -> int:
        """The argmax architecture on the architecture split: no noise, batch norm statistics recalibrated for this path."""
        ops, batches = self.supernet.architecture(), self.batches["theta"]
        latency_us = torch.tensor(self.table.predict(ops), device=self.device)
        network = cut_out(self.supernet.state_dict(), self.table.space, ops, self.classes, batches.for_norms())
        for images, labels in batches.plain():
            logits = network(images)
            ce = cross_entropy(logits, labels)
            self.means.add(self.loss(ce, latency_us), ce, latency_us, logits, labels)
        return len(batches.indices)

    def introduce(self) -> str:
        table, loss = self.table, self.settings.loss
        weights, theta = (len(batches.indices) for batches in self.batches.values())
        aim = f"; the loss aims at {loss['target_us']:.0f} µs" if loss["form"] == "target" else ""
        return (
            f"{weights} images train the weights (weights split), {theta} theta (architecture split); networks of this space "
            f"take {table.least_us:.0f} to {table.most_us:.0f} µs{aim}."
        )

    def describe(self, rows: dict[str, dict]) -> str:
        expected_us = float(self.supernet.latency_us(self.supernet.logits().detach().softmax(dim=1)))
        weights, argmax = rows["weights"], rows["argmax"]
        return (
            f"{'' if 'theta' in rows else 'warm-up, '}loss {weights['loss']:.3f}, accuracy {weights['top1']:.1%} | "
            f"{expected_us:.0f} µs expected, {argmax['latency_us']:.0f} µs argmax | one-shot accuracy {argmax['top1']:.1%}"
        )

    def end_epoch(self) -> None:
        self.thetas.append([theta.detach().cpu().clone() for theta in self.supernet.theta])
        self._keep_best(self.history[-1])

    def _keep_best(self, argmax: dict) -> None:
        """With `keep: best`, remember the supernet whose argmax architecture has the least loss, latency included."""
        theta_moves = self.epoch >= self.settings.warmup_epochs
        if self.settings.keep == "best" and theta_moves and argmax["loss"] < self.best.get("loss", math.inf):
            weights = {name: value.cpu().clone() for name, value in self.supernet.state_dict().items()}
            self.best = {"epoch": self.epoch, "loss": argmax["loss"], "weights": weights}

    def result(self) -> dict:
        """The result: `epoch` (from 0), `weights` (state dict), `theta` (a list, layer by layer), `ops` and `top1` of argmax."""
        weights = self.best["weights"] if self.best else self.supernet.state_dict()
        epoch = self.best["epoch"] if self.best else self.epoch - 1
        theta = self.thetas[epoch]
        ops = list(self.table.space.ops(int(row.argmax()) for row in theta))
        [argmax] = [row for row in self.history if row["epoch"] == epoch and row["phase"] == "argmax"]
        return {"epoch": epoch, "weights": weights, "theta": theta, "ops": ops, "top1": argmax["top1"]}

    def write_result(self, folder: Path, provenance: dict) -> None:
        """Write supernet.pt (with the provenance), theta.tsv and history.tsv, and delete the checkpoints beside them."""
        found, space = self.result(), self.table.space
        write_supernet(folder, found | provenance | self.environment, dict(enumerate(self.thetas)), space, self.history_rows())
        log.info(
            "Derived architecture (argmax of epoch %d/%d): %.0f µs predicted, one-shot accuracy %.1f%%: %s",
            *(found["epoch"] + 1, self.settings.epochs, self.table.predict(found["ops"]), 100 * found["top1"]),
            folder / "supernet.pt",
        )
