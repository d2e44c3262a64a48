"""The network of one architecture."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fbnet.network.blocks import build
from fbnet.space import SearchSpace


class Network(nn.Module):
    """One architecture of a space: images [N, 3, H, W] → logits [N, classes]. Raises InputError."""

    def __init__(self, space: SearchSpace, ops, classes: int):
        super().__init__()
        self.stem = build(space.stem)
        self.layers = nn.Sequential(*(build(cell) for cell in space.path(ops)))
        self.head = build(space.head)
        self.dropout = nn.Dropout2d(space.dropout)  # of whole channels: the same as of the pooled features
        self.classifier = build(space.classifier(classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.head(self.layers(self.stem(x)))))


def subnetwork_weights(supernet_weights: dict[str, Tensor], ops) -> dict[str, Tensor]:
    """The part of a supernet's state dict that one architecture uses, under the names that `Network` gives it."""
    ops = tuple(ops)
    weights = {}
    for name, value in supernet_weights.items():
        match = re.match(r"layers\.(\d+)\.ops\.(\w+)\.(.+)", name)
        if match is None and not name.startswith("theta."):
            weights[name] = value
        elif match and ops[int(match[1])] == match[2]:
            weights[f"layers.{match[1]}.{match[3]}"] = value
    return weights


def cut_out(supernet_weights: dict[str, Tensor], space: SearchSpace, ops, classes: int, batches: Iterable) -> Network:
    """The network of an architecture with the supernet's weights, on their device, in evaluation mode.

    Its batch norm statistics are recalibrated on `batches` of (images, labels): the supernet's mix all paths (Cai et al. 2020,
    Once-for-All). Raises InputError.
    """
    network = Network(space, ops, classes)
    network.load_state_dict(subnetwork_weights(supernet_weights, ops))
    network.to(next(iter(supernet_weights.values())).device, memory_format=torch.channels_last)
    _recalibrate_norms(network, batches)
    return network.eval()


@torch.no_grad()
def _recalibrate_norms(network: Network, batches: Iterable) -> None:
    """Give batch norms the mean of the batches' statistics; unlike torch's update_bn, without reading from the device."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    network.train()
    for number, (images, _) in enumerate(batches):
        for norm in norms:
            norm.momentum = 1 / (1 + number)
        network(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
