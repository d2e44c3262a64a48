"""The stochastic supernet (FBNet, section 3.3)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax

from fbnet.blocks import build
from fbnet.latency import LatencyTable
from fbnet.space import Cell, SearchSpace


class MixedOperation(nn.Module):
    """All candidates of a layer, blended: x [N, c_in, H, W], mask [candidates] → Σ mask · op(x) [N, c_out, H', W']."""

    def __init__(self, cells: tuple[Cell, ...]):
        super().__init__()
        self.ops = nn.ModuleDict({cell.op: build(cell) for cell in cells})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return sum(weight * op(x) for weight, op in zip(mask, self.ops.values(), strict=True))


class Supernet(nn.Module):
    """Stem, mixed operations and head; theta holds a logit per layer and candidate, `table` their latencies.

    `theta_init` is "uniform" (1/n, as the reference) or "zeros": the same distribution, other values for weight decay.
    """

    def __init__(self, space: SearchSpace, classes: int, table: LatencyTable, theta_init: str = "uniform"):
        super().__init__()
        self.space = space
        self.stem = build(space.stem)
        self.layers = nn.ModuleList(MixedOperation(layer) for layer in space.layers)
        self.head = build(space.head)
        self.dropout = nn.Dropout2d(space.dropout)
        self.classifier = build(space.classifier(classes))
        starts = [1 / len(layer) if theta_init == "uniform" else 0.0 for layer in space.layers]
        self.theta = nn.ParameterList(torch.full((len(layer),), start) for layer, start in zip(space.layers, starts, strict=True))
        self.fixed_latency_us = sum(table.fixed_us)
        for number, row in enumerate(table.operators_us):
            self.register_buffer(f"latency_us_{number}", torch.tensor(row, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Images [N, 3, H, W] → (logits [N, classes], expected latency in µs); one Gumbel draw serves the batch."""
        latency_us = torch.full((), self.fixed_latency_us, device=x.device)
        x = self.stem(x)
        for number, (layer, theta) in enumerate(zip(self.layers, self.theta, strict=True)):
            mask = gumbel_softmax(theta, temperature)
            x = layer(x, mask)
            latency_us = latency_us + (mask * self.get_buffer(f"latency_us_{number}")).sum()
        return self.classifier(self.dropout(self.head(x))), latency_us

    def weights(self) -> list[nn.Parameter]:
        """All parameters but theta."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("theta.")]

    def architecture(self) -> tuple[str, ...]:
        """The most probable operator of each layer."""
        return tuple(layer[int(theta.argmax())].op for layer, theta in zip(self.space.layers, self.theta, strict=True))


@contextmanager
def learning(supernet: Supernet, what: str) -> Iterator[None]:
    """Within it, training moves either "weights" (with the BN statistics) or "theta", and leaves the other without gradient."""
    norms = [module for module in supernet.modules() if isinstance(module, nn.BatchNorm2d)]
    for parameter in supernet.weights():
        parameter.requires_grad_(what == "weights")
    for parameter in supernet.theta:
        parameter.requires_grad_(what == "theta")
    for norm in norms:
        # In training mode without tracking, a batch is normalised by its own statistics and the running ones stay put.
        norm.track_running_stats = what == "weights"
    supernet.train()
    try:
        yield
    finally:
        supernet.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True
