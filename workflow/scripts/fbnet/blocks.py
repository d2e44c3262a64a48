"""From an operator's name and a shape to its module, and to its size in parameters and MACs."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fbnet.operators import OPERATORS, Operator
from fbnet.space import Cell


class ConvBN(nn.Sequential):
    """Convolution without bias, batch norm, ReLU unless `relu=False`: [N, c_in, H, W] → [N, c_out, ⌈H/stride⌉, ⌈W/stride⌉]."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True):
        layers = [
            nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(c_out),
        ]
        super().__init__(*layers, nn.ReLU(inplace=True)) if relu else super().__init__(*layers)


class InvertedResidual(nn.Module):
    """1×1 convolution to c_in · expansion, depthwise convolution, 1×1 convolution; residual where the shape stays.

    With groups the 1×1 convolutions are grouped, and channels are shuffled after the first (FBNet, Figure 3).
    """

    def __init__(self, operator: Operator, c_in: int, c_out: int, stride: int):
        super().__init__()
        mid = c_in * operator.expansion
        self.expand = ConvBN(c_in, mid, 1, groups=operator.groups)
        self.shuffle = nn.ChannelShuffle(operator.groups) if operator.groups > 1 else nn.Identity()
        self.depthwise = ConvBN(mid, mid, operator.kernel, stride, groups=mid)
        self.project = ConvBN(mid, c_out, 1, groups=operator.groups, relu=False)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.shuffle(self.expand(x))))
        return x + y if self.residual else y


def build(cell: Cell) -> nn.Module:
    """The module of a cell, freshly initialised. Raises InputError for a shape that the operator cannot serve."""
    operator, c_in, c_out, stride = OPERATORS[cell.op], cell.c_in, cell.c_out, cell.stride
    operator.check(c_in, c_out, stride)
    if operator.kind == "irf":
        block = InvertedResidual(operator, c_in, c_out, stride)
    elif operator.kind == "skip":
        block = nn.Identity() if stride == 1 and c_in == c_out else ConvBN(c_in, c_out, 1, stride)
    elif operator.kind == "conv":
        block = ConvBN(c_in, c_out, operator.kernel, stride)
    else:
        block = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, c_out))
    for module in block.modules():
        _initialise(module)
    return block


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


@cache
def _size(build_key: tuple) -> tuple[int, int]:
    cell = Cell("", *build_key)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        block = build(cell).eval()
        block(torch.empty(1, cell.c_in, cell.height, cell.width))
    return counter.get_total_flops() // 2, sum(p.numel() for p in block.parameters())


def size(cells) -> tuple[int, int]:
    """(MACs per image, parameters) of cells together: convolutions and fully connected layers count as MACs."""
    sizes = [_size(cell.build_key) for cell in cells]
    return sum(macs for macs, _ in sizes), sum(params for _, params in sizes)
