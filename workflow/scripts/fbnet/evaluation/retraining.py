"""Training one network, for its own sake: from scratch or from a supernet's weights, on the labels and what a teacher says."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from fbnet.data.batches import Batches, may_reside, split
from fbnet.data.dataset import Dataset
from fbnet.errors import InputError
from fbnet.memory import bytes_per_image
from fbnet.network import Network, cut_out, subnetwork_weights
from fbnet.runtime import log, replacing
from fbnet.search import largest, read_supernet
from fbnet.settings import TrainSettings
from fbnet.space import Architecture, SearchSpace, read_architectures
from fbnet.training import Loop, Ranks, Replay
from fbnet.training.checkpoint import delete

SPLIT_SEED = 0  # all training runs leave the same images out, so that their validations compare


def operators_of(path: Path, name: str | None, space: SearchSpace) -> tuple[str, ...]:
    """The operators of an architecture in a table, the first if no name is given. Raises InputError."""
    rows = read_architectures(path, space)
    for row in rows:
        if name in (None, row["name"]):
            return row["ops"]
    raise InputError(f"{path} has no architecture {name}; it has {', '.join(row['name'] for row in rows)}")


def inherited_weights(path: Path, architecture: Architecture, classes: Sequence[str]) -> dict[str, Tensor]:
    """The weights (state dict) that an architecture has in a supernet. Raises InputError for one of another space or classes."""
    return subnetwork_weights(_fitting(path, architecture, classes)["weights"], architecture.space, architecture.ops)


def teaching_weights(path: Path, architecture: Architecture, classes: Sequence[str]) -> dict[str, Tensor]:
    """The weights (state dict) of a supernet whose largest network can teach an architecture.

    Raises InputError for a supernet of another space or classes, or one whose largest network has not learned the labels.
    """
    supernet = _fitting(path, architecture, classes)
    if supernet["settings"].get("method") != "one_shot":
        raise InputError(f"{path} is not of method one_shot, where the largest network learns the labels: it cannot teach")
    return supernet["weights"]


def _fitting(path: Path, architecture: Architecture, classes: Sequence[str]) -> dict:
    supernet = read_supernet(path)
    if supernet["space"] != architecture.space.definition or list(supernet["classes"]) != list(classes):
        raise InputError(f"{path} is of another space or of other classes than the architecture")
    return supernet


class Training(Loop):
    """A network in training. It is evaluated on images left out after every epoch, and on the test set once, at the end.

    It starts from `weights` (state dict), if there are any. `teaching`: those of a supernet, whose largest network teaches it.
    Raises InputError where these are given and the settings want no teacher, or the other way round.
    """

    LEGEND = "loss and accuracy in training | accuracy on the images left out (validation), at the end on the test set"

    def __init__(
        self,
        dataset: Dataset,
        architecture: Architecture,
        settings: TrainSettings,
        device: torch.device,
        weights: dict[str, Tensor] | None = None,
        teaching: dict[str, Tensor] | None = None,
    ):
        if bool(settings.teacher) != bool(teaching):
            what = "a supernet is given to teach" if teaching else "no supernet is given to teach"
            raise InputError(f"train.teacher is {settings.teacher}, but {what}: change one of them")
        self.dataset, self.architecture = dataset, architecture
        on_device = may_reside(dataset.train_images, device)
        for_training, for_validation = split(dataset.train_labels, 1 - settings.validation_share, SPLIT_SEED)
        torch.manual_seed(settings.seed)
        self.network, self.average = (Network(architecture.space, architecture.ops, architecture.classes) for _ in range(2))
        if settings.dropout is not None:
            self.network.dropout.p = settings.dropout
        if weights:
            self.network.load_state_dict(weights)
        self.average.load_state_dict(self.network.state_dict())
        for network in (self.network, self.average):
            network.to(device, memory_format=torch.channels_last)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None  # nobody reads it, and each step would launch a kernel for each norm's
        self.average.requires_grad_(False)
        averages, current = self.average.state_dict(), self.network.state_dict()
        self.averaged = [averages[name] for name in current], list(current.values())
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            **{"lr": settings.lr, "momentum": settings.momentum, "nesterov": settings.nesterov},
            weight_decay=settings.weight_decay,
            fused=True,
        )
        batches = {"train": Batches(dataset, for_training, settings.batch_size, device, on_device)}
        modules = {"network": self.network, "average": self.average}
        super().__init__("train", settings, device, Ranks(), batches, modules, {"train": optimizer})
        self.validation = Batches(dataset, for_validation, settings.batch_size, device, on_device)
        self.teacher = self._teacher(teaching) if teaching else None
        self.no_latency, self.rate = torch.zeros((), device=device), torch.zeros((), device=device)
        self.replay = Replay(self.update, usable=device.type == "cuda")

    def phases(self, epoch: int) -> list[str]:
        return ["train", "validation", *(["test"] if epoch == self.settings.epochs - 1 else [])]

    def begin(self) -> float:
        self.network.train()
        self.optimizers["train"].param_groups[0]["lr"] = self.rate
        return float("nan")

    def advance(self, images: Tensor, labels: Tensor) -> None:
        self.rate.fill_(self.settings.rate_at(self.epoch + (self.step + 1) / len(self.batches["train"])))
        loss, ce, logits = self.replay("train", self.optimizers["train"], images, labels)
        self._average()
        self.means.add(loss, ce, self.no_latency, logits, labels)
        self.means.check(self.step, loss)

    def update(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the optimiser on images [n, 3, H, W]: the loss, its cross-entropy without smoothing, logits [n, classes].

        Nothing here depends on a number that changes from step to step and is not in a tensor.
        """
        self.optimizers["train"].zero_grad()
        with self.autocast():
            aims = self.teacher(images).float().softmax(1) if self.teacher else None  # first: it leaves nothing in memory
            logits = self.network(images)
        log_probs, share = logits.float().log_softmax(1), self.settings.label_smoothing
        ce = nll_loss(log_probs, labels)
        loss = (1 - share) * ce - share * log_probs.mean()  # (Szegedy et al. 2016, section 7)
        if self.teacher:
            taught = self.settings.teacher
            loss = (1 - taught) * loss - taught * (aims * log_probs).sum(1).mean()  # (Hinton et al. 2015, at temperature 1)
        loss.backward()
        self.optimizers["train"].step()
        return loss.detach(), ce.detach(), logits.detach()

    def evaluate(self) -> int:
        if self.phase == "validation":
            batches = self.validation
        else:
            images, labels = self.dataset.test_images, self.dataset.test_labels
            tests = dataclasses.replace(self.dataset, train_images=images, train_labels=labels)
            on_device = may_reside(images, self.device)
            batches = Batches(tests, np.arange(len(labels)), self.settings.batch_size, self.device, on_device)
        network = self.average.eval()
        for images, labels in batches.plain():  # in float32, whatever it is trained in, as the exported network computes
            logits = network(images)
            ce = cross_entropy(logits, labels)
            self.means.add(ce, ce, self.no_latency, logits, labels)
        return len(batches.indices)

    def introduce(self) -> str:
        return (
            f"{self.architecture.name} on {self.dataset.name}, seed {self.settings.seed}: {len(self.batches['train'].indices)} "
            f"images to train on, {len(self.validation.indices)} left out."
        )

    def describe(self, rows: dict[str, dict]) -> str:
        evaluated = [f"{phase} accuracy {rows[phase]['top1']:.1%}" for phase in ("validation", "test") if phase in rows]
        return f"loss {rows['train']['loss']:.3f}, accuracy {rows['train']['top1']:.1%} | {', '.join(evaluated)}"

    def bytes_per_image(self) -> float:
        return bytes_per_image(self.network, self.architecture.space.resolution, self.device)

    def history_rows(self):
        return super().history_rows().drop(columns=["latency_us", "temperature"])

    def result(self) -> dict:
        """What was trained: `weights` (averaged), top-1 of the last `validation` and of the `test`, in [0, 1], and `seconds`."""
        top1 = {row["phase"]: row["top1"] for row in self.history}
        weights = {name: value.cpu().contiguous() for name, value in self.average.state_dict().items()}
        seconds = sum(row["seconds"] for row in self.history)
        return {"weights": weights, "validation_top1": top1["validation"], "test_top1": top1["test"], "seconds": seconds}

    def write_result(self, folder: Path, provenance: dict) -> None:
        """Write history.tsv and network.pt (with the provenance), and delete the checkpoints beside them."""
        found = self.result() | {"name": self.architecture.name} | provenance | self.environment
        with replacing(folder / "history.tsv", folder / "network.pt") as (history, network):
            self.history_rows().to_csv(history, sep="\t", index=False, float_format="%.6g")
            torch.save(found, network)
        delete(folder / "checkpoint.pt")
        log.info("%s: test accuracy %.2f%%: %s", self.architecture.name, 100 * found["test_top1"], folder / "network.pt")

    def _teacher(self, supernet_weights: dict[str, Tensor]) -> Network:
        """The largest network of a supernet, with batch norm statistics of the images to train on."""
        space = self.architecture.space
        ops = space.ops(largest(space))
        weights = {name: value.to(self.device) for name, value in supernet_weights.items()}
        images = self.batches["train"].for_norms()
        return cut_out(weights, space, ops, self.architecture.classes, images).requires_grad_(False)

    def _average(self) -> None:
        """An exponential moving average of weights and batch norm statistics, over fewer steps while there are few."""
        steps = self.epoch * len(self.batches["train"]) + self.step
        decay = min(self.settings.ema, (1 + steps) / (10 + steps)) if self.settings.ema and steps else 0.0
        torch._foreach_lerp_(*self.averaged, 1 - decay)
