"""From an operator's name and a shape to its module, and to its size in parameters and MACs."""

from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from fbnet.space import OPERATORS, Cell, Operator


class InvertedResidual(nn.Module):
    """1×1 convolution to c_in · expansion, depthwise convolutions (or a shift), 1×1 convolution; residual where the shape stays.

    Each convolution has its norm, and all but the last a ReLU. With groups the 1×1 convolutions are grouped, and channels are
    shuffled after the first (FBNet, Figure 3). Squeeze-excite, if any, comes last: reduction 4, at least 8 channels.
    """

    def __init__(self, operator: Operator, cell: Cell, conv: partial):
        super().__init__()
        c_in, c_out, middle, groups = cell.c_in, cell.c_out, cell.c_in * cell.expansion, operator.groups
        self.expand = conv(c_in, middle, 1, groups=groups)
        self.shuffle = nn.ChannelShuffle(groups) if groups > 1 else nn.Identity()
        if operator.kind == "shift":
            self.depthwise = Shift(middle, operator.kernel, cell.stride)
        else:
            strides = [cell.stride, *[1] * operator.depthwise][: operator.depthwise]
            self.depthwise = nn.Sequential(*(conv(middle, middle, operator.kernel, stride, groups=middle) for stride in strides))
        last_stride = 1 if operator.depthwise else cell.stride  # ir_k1 has no other place for it
        self.project = conv(middle, c_out, 1, last_stride, groups=groups, activation_layer=None)
        self.residual = cell.keeps_shape
        self.excite = _squeeze_excitation(c_out) if operator.se else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.shuffle(self.expand(x))))
        return self.excite(x + y if self.residual else y)


class Shift(nn.Module):
    """[N, C, H, W] with C / kernel² channels moved by each offset of a kernel's taps, the rest staying; no parameters, no MACs.

    Wu et al. 2018, Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions.
    """

    def __init__(self, channels: int, kernel: int, stride: int):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        share = channels // kernel**2
        self.sizes = [share] * kernel**2
        self.sizes[kernel**2 // 2] += channels % kernel**2

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        parts = pad(x, (self.kernel // 2,) * 4).split(self.sizes, dim=1)
        moved = []
        for tap, part in enumerate(parts):
            if self.sizes[tap]:
                top, left = divmod(tap, self.kernel)
                moved.append(part[:, :, top : top + height : self.stride, left : left + width : self.stride])
        return torch.cat(moved, dim=1)


class StridedPointwise(nn.Conv2d):
    """A 1×1 convolution with a stride; in training on the CPU it leaves pixels out first, and has no stride.

    In channels_last with fewer than 16 channels the gradient of its weights, as oneDNN computes it, writes into memory that is
    not its own (uxlfoundation/oneDNN, issue 6035): the program crashes, or learns from wrong gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.device.type == "cpu":
            height, width = self.stride
            return conv2d(x[:, :, ::height, ::width], self.weight, self.bias, groups=self.groups)
        return super().forward(x)


class BasicBlock(nn.Module):
    """3×3 convolution (norm, ReLU), 3×3 convolution (norm); residual where the shape stays."""

    def __init__(self, operator: Operator, cell: Cell, conv: partial):
        super().__init__()
        self.first = conv(cell.c_in, cell.c_in, operator.kernel, cell.stride)
        self.second = conv(cell.c_in, cell.c_out, operator.kernel, activation_layer=None)
        self.residual = cell.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        return x + y if self.residual else y


def build(cell: Cell) -> nn.Module:
    """The module of a cell, freshly initialised. Raises InputError for a shape that the operator cannot serve."""
    cell.check()
    operator = OPERATORS[cell.op]
    conv = partial(_conv_norm_activation, norm_layer=_norm_layer(cell.norm))
    if operator.kind in ("irf", "shift"):
        block = InvertedResidual(operator, cell, conv)
    elif operator.kind == "basic":
        block = BasicBlock(operator, cell, conv)
    elif operator.kind == "skip":
        block = nn.Identity() if cell.keeps_shape else conv(cell.c_in, cell.c_out, 1, cell.stride)
    elif operator.kind == "conv":
        block = conv(cell.c_in, cell.c_out, operator.kernel, cell.stride)
    else:
        block = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cell.c_in, cell.c_out))
    for module in block.modules():
        _initialise(module)
    return block


def _conv_norm_activation(c_in, c_out, kernel, stride=1, groups=1, *, norm_layer, activation_layer=nn.ReLU) -> nn.Sequential:
    # Without a norm the convolution has a bias.
    kind = StridedPointwise if kernel == 1 < stride else nn.Conv2d
    layers = [kind(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=norm_layer is None)]
    if norm_layer:
        layers.append(norm_layer(c_out))
    if activation_layer:
        layers.append(activation_layer(inplace=True))
    return nn.Sequential(*layers)


# torchvision takes as long to import as PyTorch itself, in each job anew, and most spaces need nothing of it.


def _norm_layer(norm: str):
    if norm == "frozen":
        from torchvision.ops import FrozenBatchNorm2d

        return FrozenBatchNorm2d
    if norm.startswith("gn"):
        return partial(nn.GroupNorm, int(norm[2:]))
    return {"bn": nn.BatchNorm2d, "none": None}[norm]


def _squeeze_excitation(channels: int) -> nn.Module:
    from torchvision.ops import SqueezeExcitation

    return SqueezeExcitation(channels, max(channels // 4, 8))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def sliced(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of a weight that a smaller operator of the family has: the first channels, the middle of a kernel."""
    for dim, (whole, part) in enumerate(zip(weight.shape, shape, strict=False)):
        if part < whole:
            weight = weight.narrow(dim, (whole - part) // 2 if dim > 1 else 0, part)
    return weight


@cache
def shapes(build_key: tuple) -> dict[str, torch.Size]:
    """The shapes of a cell's parameters and buffers by name."""
    with torch.device("meta"):
        return {name: value.shape for name, value in build(Cell("", *build_key)).state_dict().items()}


@cache
def _size(build_key: tuple) -> tuple[int, int]:
    from torch.utils.flop_counter import FlopCounterMode  # here: it brings triton, for which each training would wait

    cell = Cell("", *build_key)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        block = build(cell).eval()
        block(torch.empty(1, cell.c_in, cell.height, cell.width))
    return counter.get_total_flops() // 2, sum(p.numel() for p in block.parameters())


def size(cells) -> tuple[int, int]:
    """(MACs per image, trainable parameters) of cells together: convolutions and fully connected layers count as MACs."""
    sizes = [_size(cell.build_key) for cell in cells]
    return sum(macs for macs, _ in sizes), sum(params for _, params in sizes)
