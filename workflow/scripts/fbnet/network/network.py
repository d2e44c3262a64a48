"""The network of one architecture."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fbnet.network.blocks import build, shapes, sliced
from fbnet.space import OPERATORS, Cell, SearchSpace


class Network(nn.Module):
    """One architecture of a space: images [N, 3, H, W] → logits [N, classes]. Raises InputError."""

    def __init__(self, space: SearchSpace, ops, classes: int):
        super().__init__()
        stem, *layers, head, classifier = space.network_cells(ops, classes)
        self.stem = build(stem)
        self.layers = nn.Sequential(*map(build, layers))
        self.head = build(head)
        self.dropout = nn.Dropout2d(space.dropout)  # of whole channels: the same as of the pooled features
        self.classifier = build(classifier)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.head(self.layers(self.stem(x)))))


def subnetwork_weights(supernet_weights: dict[str, Tensor], space: SearchSpace, ops) -> dict[str, Tensor]:
    """The part of a supernet's state dict that one architecture uses, under the names that `Network` gives it.

    Weights that the operators of a family, or several numbers of channels share are sliced. Raises InputError for operators that
    are not of the space.
    """
    weights = {name: value for name, value in supernet_weights.items() if not name.startswith(("layers.", "theta."))}
    _, *path, head, _ = space.network_cells(ops, 1)
    for number, cell in enumerate(path):
        for name, shape in shapes(cell.build_key).items():
            owners = (f"layers.{number}.ops.{owner}.{name}" for owner in (cell.op, OPERATORS[cell.op].family, own_name(cell)))
            [whole, *_] = (supernet_weights[owner] for owner in owners if owner in supernet_weights)
            weights[f"layers.{number}.{name}"] = sliced(whole, shape)
    for name, shape in shapes(head.build_key).items():
        weights[f"head.{name}"] = sliced(weights[f"head.{name}"], shape)
    return weights


def own_name(cell: Cell) -> str:
    """What a cell's weights are called in a supernet where those of other channels are not the same ones."""
    return f"{cell.op}_{cell.c_in}_{cell.c_out}"


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
