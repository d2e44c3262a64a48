"""The supernet: all architectures of a space in one network; and FBNet's, in which theta says how probable each is."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from torch.nn.utils.rnn import pad_sequence

from fbnet.latency import LatencyTable
from fbnet.network import build, sliced
from fbnet.search.flat import FlatWeights
from fbnet.search.fused import computed_in, pointwise
from fbnet.search.mixed import MixedOperation
from fbnet.space import SearchSpace


class Supernet(nn.Module):
    """Stem, mixed operations and head.

    `made_for` ("cpu" or "cuda") says for whose kernels the steps are shaped. With `shared`, operators of a family share weights;
    numbers of channels always do.
    """

    def __init__(self, space: SearchSpace, classes: int, made_for: str = "cpu", shared: bool = False):
        super().__init__()
        self.space = space
        self.stem = build(space.stem)
        self.layers = nn.ModuleList(MixedOperation(layer, made_for, shared) for layer in space.layers)
        self.flat: FlatWeights | None = None
        self.head = build(space.head)
        self.dropout = nn.Dropout2d(space.dropout)
        self.classifier = build(space.classifier(classes))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Training normalises by the batch. Running statistics would mix all paths: whoever cuts out a network
                # recalibrates them.
                module.track_running_stats = False

    def flatten(self) -> None:
        """Have the weights of joined candidates, if any, as one parameter, on the device where they are: for soft sampling.

        Where they are shared, there are few, and a gather would hand out the same one several times.
        """
        if any(layer.joined and not layer.shared for layer in self.layers):
            self.flat = FlatWeights(self.layers)

    def forward(self, x: Tensor, masks: Tensor | None, chosen: Sequence[int] | None = None) -> Tensor:
        """Images [N, 3, H, W] → logits [N, classes]: all candidates, weighed by masks [layers, candidates].

        With `chosen`, a number for each layer, only that candidate is computed; masks are then [layers], or None for ones.
        """
        rows = [None] * len(self.layers) if masks is None else masks.unbind()
        joints = self.flat.joints(computed_in(x)) if self.flat and chosen is None else [None] * len(self.layers)
        x = self.stem(x)
        for number, (layer, row) in enumerate(zip(self.layers, rows, strict=True)):
            x = layer(x, row, joints[number]) if chosen is None else layer.path(x, chosen[number], row)
        conv, *rest = self.head  # of 1×1, which is a matrix product, and faster as one
        weight = sliced(conv.weight, [conv.out_channels, x.shape[1]])
        x = pointwise(x, weight.flatten(1)) if conv.bias is None else conv2d(x, weight, conv.bias)
        for module in rest:
            x = module(x)
        return self.classifier(self.dropout(x))

    def weights(self) -> list[nn.Parameter]:
        """All parameters that training moves, but theta."""
        own = [parameter for name, parameter in self.named_parameters() if not name.startswith("theta.")]
        if self.flat is None:
            return own
        views = set(map(id, self.flat.views))
        return [self.flat.flat, *(parameter for parameter in own if id(parameter) not in views)]


class StochasticSupernet(Supernet):
    """A supernet with theta, a logit per layer and candidate, and `table`, their latencies (FBNet, section 3.3).

    `theta_init` is "uniform" (1/n, as the reference) or "zeros": the same distribution, other values for weight decay.
    """

    def __init__(
        self,
        space: SearchSpace,
        classes: int,
        table: LatencyTable,
        theta_init: str = "uniform",
        made_for: str = "cpu",
        shared: bool = False,
    ):
        super().__init__(space, classes, made_for, shared)
        starts = [1 / len(layer) if theta_init == "uniform" else 0.0 for layer in space.layers]
        self.theta = nn.ParameterList(torch.full((len(layer),), start) for layer, start in zip(space.layers, starts, strict=True))
        self.fixed_latency_us = sum(table.fixed_us)
        rows = [torch.tensor(row, dtype=torch.float32) for row in table.operators_us]
        self.register_buffer("latencies_us", pad_sequence(rows, batch_first=True), persistent=False)

    def logits(self) -> Tensor:
        """Theta as one tensor [layers, candidates], −inf where a layer has fewer candidates than another."""
        most = max(map(len, self.theta))
        rows = [row if len(row) == most else pad(row, (0, most - len(row)), value=-math.inf) for row in self.theta]
        return torch.stack(rows)

    def latency_us(self, masks: Tensor) -> Tensor:
        """The expected latency in µs [...] under masks [..., layers, candidates] (FBNet, eq. 6)."""
        return self.fixed_latency_us + (masks * self.latencies_us).sum((-2, -1))

    def learn(self, what: str) -> None:
        """From now on training moves either "weights" or "theta"; the other gets no gradient."""
        for parameter in self.weights():
            parameter.requires_grad_(what == "weights")
        self.theta.requires_grad_(what == "theta")

    def architecture(self) -> tuple[str, ...]:
        """The most probable operator of each layer."""
        return self.space.ops(int(theta.argmax()) for theta in self.theta)
