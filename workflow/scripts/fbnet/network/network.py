"""The network of one architecture."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fbnet.network.blocks import build, shapes, sliced
from fbnet.space import OPERATORS, SearchSpace


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


def subnetwork_weights(supernet_weights: dict[str, Tensor], space: SearchSpace, ops) -> dict[str, Tensor]:
    """The part of a supernet's state dict that one architecture uses, under the names that `Network` gives it.

    Weights that the operators of a family share are sliced. Raises InputError for operators that are not of the space.
    """
    weights = {name: value for name, value in supernet_weights.items() if not name.startswith(("layers.", "theta."))}
    for number, cell in enumerate(space.path(ops)):
        for name, shape in shapes(cell.build_key).items():
            owners = (f"layers.{number}.ops.{owner}.{name}" for owner in (cell.op, OPERATORS[cell.op].family))
            [whole, *_] = (supernet_weights[owner] for owner in owners if owner in supernet_weights)
            weights[f"layers.{number}.{name}"] = sliced(whole, shape)
    return weights


def cut_out(supernet_weights: dict[str, Tensor], space: SearchSpace, ops, classes: int, batches: Iterable) -> Network:
    """The network of an architecture with the supernet's weights, on their device, in evaluation mode.

    Its batch norm statistics are recalibrated on `batches` of (images, labels): the supernet's mix all paths (Cai et al. 2020,
    Once-for-All). Raises InputError.
    """
    network = Network(space, ops, classes)
    network.load_state_dict(subnetwork_weights(supernet_weights, space, ops))
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
