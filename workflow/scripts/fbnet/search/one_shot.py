"""One-shot search: a supernet whose paths are all to be good at once, and what its operators are worth; no latency."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fbnet.data.batches import Batches, may_reside, split
from fbnet.data.dataset import Dataset
from fbnet.errors import Stopped
from fbnet.memory import bytes_per_image
from fbnet.runtime import Progress, log
from fbnet.search.saved import write_supernet
from fbnet.search.supernet import Supernet
from fbnet.search.worth import draw_of_all_sizes, largest, worths_of_candidates
from fbnet.settings import OneShotSettings
from fbnet.space import SearchSpace, extreme
from fbnet.training import Loop, Ranks

SHOWN = 4  # random paths that are evaluated after each epoch, always the same
BATCH = 256  # images that share batch norm statistics where a path is evaluated


class OneShot(Loop):
    """A supernet in training: at each step its largest path learns the labels, and random ones the outputs of that.

    The sandwich rule with in-place distillation (Yu & Huang 2019, Universally Slimmable Networks; Yu et al. 2020, BigNAS), over
    the operators of a layer and the channels of a stage. `made_for` as in Supernet.
    """

    LEGEND = (
        "loss and accuracy of the largest path in training (weights split) | one-shot accuracy of that, and the mean of "
        f"{SHOWN} random ones (architecture split)"
    )

    def __init__(
        self,
        dataset: Dataset,
        space: SearchSpace,
        settings: OneShotSettings,
        device: torch.device,
        ranks: Ranks | None = None,
        made_for: str | None = None,
    ):
        ranks = ranks or Ranks()
        self.space, self.classes = space, len(dataset.classes)
        share = settings.batch_size // ranks.count
        part = slice(ranks.rank * share, (ranks.rank + 1) * share)
        on_device = may_reside(dataset.train_images, device)
        first, second = split(dataset.train_labels, settings.weight_share, settings.seed)
        batches = {"weights": Batches(dataset, first, settings.batch_size, device, on_device, part)}
        self.judging = Batches(dataset, second, min(BATCH, len(second)), device, on_device)
        torch.manual_seed(settings.seed)
        self.supernet = Supernet(space, self.classes, made_for or device.type, settings.shared_weights)
        self.supernet.to(device, memory_format=torch.channels_last)
        weights = settings.weights
        optimizer = torch.optim.SGD(
            self.supernet.weights(),
            **{"lr": weights["lr"], "momentum": weights["momentum"], "nesterov": weights["momentum"] > 0},
            weight_decay=weights["weight_decay"],
            fused=True,
        )
        for parameter in self.supernet.weights():  # the fused optimiser takes all momenta or none, but not all have a gradient
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        super().__init__("search", settings, device, ranks, batches, {"supernet": self.supernet}, {"weights": optimizer})
        self.largest = largest(space)
        self.theta: list[Tensor] = []
        self.no_latency = torch.full((), torch.nan, device=device)

    @property
    def state(self) -> dict:
        return Loop.state.fget(self) | {"theta": self.theta}

    @state.setter
    def state(self, state: dict) -> None:
        Loop.state.fset(self, state)
        self.theta = state["theta"]

    def phases(self, epoch: int) -> list[str]:
        return ["weights", "largest", "random", *(["rated"] if epoch == self.settings.epochs - 1 else [])]

    def begin(self) -> float:
        self.supernet.train()
        self.rate = self.optimizers["weights"].param_groups[0]["lr"] = torch.tensor(0.0, device=self.device)
        self.paths = self._drawn(len(self.batches["weights"]) * self.settings.paths, self.seed(1))
        return float("nan")

    def _drawn(self, count: int, seed: int) -> list[list[int]]:
        """Random paths of all sizes, the number of a candidate for each layer."""
        return draw_of_all_sizes(self.space, count, seed).tolist()

    def advance(self, images: Tensor, labels: Tensor) -> None:
        self.rate.fill_(self.settings.rate_at(self.epoch + (self.step + 1) / len(self.batches["weights"])))
        paths = self.paths[self.step * self.settings.paths :][: self.settings.paths]
        ce, logits = self.update(images, labels, paths)
        self.means.add(ce, ce, self.no_latency, logits, labels)
        self.means.check(self.step, ce)

    def update(self, images: Tensor, labels: Tensor, paths: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """One step of the optimiser on this process's part, images [n, 3, H, W]: the largest path's loss, logits [n, classes].

        Nothing here but the paths depends on a number that changes from step to step and is not in a tensor.
        """
        optimizer = self.optimizers["weights"]
        optimizer.zero_grad()
        logits = self._forward(images, self.largest)
        ce = cross_entropy(logits, labels)
        ce.backward()
        aims = logits.detach().softmax(1)
        for path in paths:
            cross_entropy(self._forward(images, path), aims).backward()
        self.ranks.average_gradients(optimizer.param_groups[0]["params"])
        optimizer.step()
        return ce.detach(), logits.detach()

    def _forward(self, images: Tensor, path: Sequence[int]) -> Tensor:
        with self.autocast():
            return self.supernet(images, None, path).float()

    @torch.no_grad()
    def evaluate(self) -> int:
        self.supernet.train()
        self.supernet.dropout.eval()
        if self.phase == "rated":
            self._save()  # what follows takes about as long as an epoch
            return self._rate_operators()
        paths = [self.largest] if self.phase == "largest" else self._drawn(SHOWN, self.settings.seed)
        judged = [self._judge(path, *batch) for batch in self.judging.for_norms() for path in paths]
        return len(judged) * self.judging.batch_size

    def _judge(self, path: Sequence[int], images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a path on a batch of the architecture split, with the statistics of that in its norms."""
        logits = self._forward(images, path)
        ce = cross_entropy(logits, labels)
        self.means.add(ce, ce, self.no_latency, logits, labels)
        return ce

    def _rate_operators(self) -> int:
        """Have `theta` say what each candidate is worth, in standard errors, by the losses of random architectures.

        Each is judged on one batch: more architectures tell more than more images of each. Batches differ; what counts is how
        much less an architecture loses than others on the same one.
        """
        paths = draw_of_all_sizes(self.space, self.settings.rated, self.settings.seed)
        log.info("Rating operators by the losses of %d random architectures.", len(paths))
        losses, batches = torch.zeros(len(paths), device=self.device), list(self.judging.for_norms())
        for number in Progress(range(len(paths)), desc="rating of operators", unit="architectures"):
            losses[number] = self._judge(paths[number].tolist(), *batches[number % len(batches)])
            if self.ranks.any([bool(self.stop.signal)])[0]:
                raise Stopped(
                    f"Stopped by {self.stop.signal or 'a signal'} in the rating of operators, which the next call repeats."
                )
        for first in range(len(batches)):
            losses[first :: len(batches)] -= losses[first :: len(batches)].mean()
        values, error, explained = worths_of_candidates(self.space, paths, (-losses).tolist())
        self.theta = [torch.tensor(row / error, dtype=torch.float32) for row in values]
        log.info("What operators are worth explains %.0f%% of these losses.", 100 * explained)
        return len(paths) * self.judging.batch_size

    def introduce(self) -> str:
        weights, others = len(self.batches["weights"].indices), len(self.judging.indices)
        return f"{weights} images train the weights (weights split), {others} judge architectures (architecture split)."

    def describe(self, rows: dict[str, dict]) -> str:
        weights, largest, random = (rows[phase] for phase in ("weights", "largest", "random"))
        return f"loss {weights['loss']:.3f}, accuracy {weights['top1']:.1%} | {largest['top1']:.1%}, {random['top1']:.1%}"

    def rate_key(self) -> str:
        return "search.weights.lr"

    def bytes_per_image(self) -> float:
        return bytes_per_image(lambda images: self.supernet(images, None, self.largest), self.space.resolution, self.device)

    def result(self) -> dict:
        """The result: `epoch` (from 0), `weights` (state dict), `theta` (a list, layer by layer), `ops` of argmax."""
        ops = list(self.space.ops(extreme(self.space, [row.tolist() for row in self.theta])))
        return {"epoch": self.epoch - 1, "weights": self.supernet.state_dict(), "theta": self.theta, "ops": ops, "top1": None}

    def write_result(self, folder: Path, provenance: dict) -> None:
        """Write supernet.pt (with the provenance), theta.tsv and history.tsv, and delete the checkpoints beside them."""
        found = self.result() | provenance | self.environment
        write_supernet(folder, found, {found["epoch"]: self.theta}, self.space, self.history_rows())
        log.info("One-shot supernet and what its operators are worth: %s", folder / "supernet.pt")
