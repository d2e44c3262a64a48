"""What an operator takes of a small device: memory for activations, and space in a file."""

from collections.abc import Iterable
from functools import cache

import torch
from torch import nn

from fbnet.network.blocks import Shift, build
from fbnet.space import Cell

# In a file in 8-bit integers, beside a byte a weight.
BYTES_A_CHANNEL = 17  # bias, its scale and zero point, scale and zero point of the weights
BYTES_A_LAYER = 1800  # its nodes, by name


@cache
def _layers(build_key: tuple) -> tuple[int, tuple[nn.Module, ...]]:
    """The most values that are in memory at once while a cell is computed for one image, and its layers that have weights."""
    cell = Cell("", *build_key)
    live, weighted = [0], []

    def note(layer: nn.Module, images: tuple, output: torch.Tensor) -> None:
        # Norms and activations are computed in place. A residual waits from the second layer on.
        waits = images_in.numel() if getattr(block, "residual", False) and images[0] is not images_in else 0
        live.append(waits + images[0].numel() + output.numel())

    with torch.device("meta"), torch.no_grad():
        block = build(cell).eval()
        images_in = torch.empty(1, cell.c_in, cell.height, cell.width)
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                weighted.append(layer)
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.AdaptiveAvgPool2d | Shift):
                layer.register_forward_hook(note)
        block(images_in)
    return max(live), tuple(weighted)


def peak_values(cell: Cell) -> int:
    """The most values that are in memory at once while a cell is computed for one image: inputs and outputs of its layers."""
    return _layers(cell.build_key)[0]


def int8_bytes(cells: Iterable[Cell]) -> int:
    """How many bytes cells add to an exported file in 8-bit integers (onnxruntime's QDQ, weights scaled by channel)."""
    weights = [layer.weight for cell in cells for layer in _layers(cell.build_key)[1]]
    return sum(weight.numel() + BYTES_A_CHANNEL * len(weight) + BYTES_A_LAYER for weight in weights)
