"""The metrics of a phase, gathered on the device."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fbnet.training.ranks import Ranks

NAMES = ("loss", "ce", "latency_us", "top1", "top5")


class Means:
    """Running means over images, and the first step that was not finite; nothing waits for the device before `read`."""

    def __init__(self, device: torch.device, sums: Sequence[float] | None = None, count: int = 0):
        self.sums = torch.tensor(sums or [0.0] * len(NAMES), dtype=torch.float64, device=device)
        self.count = count
        self.broken = torch.full((), math.inf, device=device)

    def add(self, loss: Tensor, ce: Tensor, latency_us: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: scalars, logits [N, classes], labels [N]."""
        with torch.no_grad():
            ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            hits = ranked[:, 0].float().mean(), ranked.any(dim=1).float().mean()
            self.sums += torch.stack([loss, ce, latency_us, *hits]) * len(labels)
            self.count += len(labels)

    def check(self, step: int, value: Tensor) -> None:
        """Remember this step, if it is the first in which something of a value is not finite."""
        with torch.no_grad():
            finite = value.isfinite().all()
            self.broken = torch.where(finite, self.broken, self.broken.clamp(max=step))

    def state(self, ranks: Ranks) -> dict:
        """All that is needed to go on, over all processes: `sums` by NAMES, `count`; waits for the device."""
        *sums, count = ranks.sum(torch.cat([self.sums, self.sums.new_tensor([self.count])])).tolist()
        return {"sums": sums, "count": int(count)}

    def read(self, ranks: Ranks) -> dict[str, float]:
        """The means so far, over all processes, and `broken`, the first step that was not finite (inf: none)."""
        state = self.state(ranks)
        means = {name: total / max(state["count"], 1) for name, total in zip(NAMES, state["sums"], strict=True)}
        return means | {"broken": ranks.min(self.broken).item()}
