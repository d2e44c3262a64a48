"""A searched layer of the supernet: its candidates, computed together where they are alike."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm, conv2d, linear, pad

from fbnet.blocks import InvertedResidual, build
from fbnet.operators import OPERATORS
from fbnet.space import Cell

aten = torch.ops.aten
MANY = 16  # pixels of a batch for each channel, from which on a norm's statistics are had sooner from the moments of its input


class MixedOperation(nn.Module):
    """The candidates of a layer, blended: x [N, c_in, H, W], mask [candidates] → Σ mask · op(x) [N, c_out, H', W'].

    `ops` holds a plain module for each candidate. Inverted residuals of one kernel size share their input and their form: they
    run as one block, their channels side by side. A batch norm has its statistics per channel, so this changes nothing but the
    time (to rounding); in training mode the norms take the batch's statistics and keep none.
    """

    def __init__(self, cells: tuple[Cell, ...]):
        super().__init__()
        self.ops = nn.ModuleDict({cell.op: build(cell) for cell in cells})
        operators = [OPERATORS[cell.op] for cell in cells]
        self.groups = [operator.groups for operator in operators]
        self.kernels = [
            operator.kernel if cell.norm == "bn" and operator.kind == "irf" and operator.depthwise == 1 and not operator.se else 0
            for cell, operator in zip(cells, operators, strict=True)
        ]  # 0: computed by itself

    def forward(self, x: Tensor, mask: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """The sum over all candidates, or over those whose numbers are `chosen`."""
        ops = list(self.ops.values())
        chosen = range(len(ops)) if chosen is None else chosen
        through: list[Tensor] = []  # weights with which x itself goes through
        blends: list[Tensor] = []
        alike: dict[int, list[int]] = {}
        for number in chosen:
            if isinstance(ops[number], nn.Identity):
                through.append(mask[number])
            elif self.kernels[number]:
                alike.setdefault(self.kernels[number], []).append(number)
                if ops[number].residual:
                    through.append(mask[number])
            else:
                blends.append(mask[number] * ops[number](x))
        several = any(len(numbers) > 1 for numbers in alike.values())
        moments = _moments(x) if several and x[:, 0].numel() >= MANY * x.shape[1] else None
        for numbers in alike.values():
            blends.append(self._together(x, moments, [ops[number] for number in numbers], numbers, mask))
        if through:
            blends.append(sum(through[1:], start=through[0]) * x)
        return sum(blends[1:], start=blends[0])

    def _together(self, x: Tensor, moments, blocks: list[InvertedResidual], numbers: list[int], mask: Tensor) -> Tensor:
        """Σ mask · block(x), residuals apart, of inverted residuals with equal kernel and stride."""
        groups = [self.groups[number] for number in numbers]
        expands, depthwises, projects = ([], [], [])
        for block, count in zip(blocks, groups, strict=True):
            conv, norm, _ = block.expand
            expand = (_dense(conv.weight, count), norm.weight, norm.bias)
            if count > 1:
                order = _shuffled(len(norm.weight), count, x.device)
                expand = [tensor[order] for tensor in expand]
            expands.append(expand)
            depthwises.append((block.depthwise[0][0].weight, block.depthwise[0][1].weight, block.depthwise[0][1].bias))
            projects.append((_dense(block.project[0].weight, count), block.project[1].weight, block.project[1].bias))
        weight, gamma, beta = map(_joined, zip(*expands, strict=True))
        active = _expanded(x, moments, weight, gamma, beta, blocks[0].expand[1].eps)
        kernels, *scales = map(_joined, zip(*depthwises, strict=True))
        stride = blocks[0].depthwise[0][0].stride[0]
        kernels = _reachable(kernels, *x.shape[2:]).to(active.dtype)
        weights, gammas, betas = zip(*projects, strict=True)
        weights = [weight.to(active.dtype) for weight in weights]
        outputs = DepthwiseProject.apply(active, kernels, *scales, stride, blocks[0].depthwise[0][1].eps, *weights)
        # Σ mask · norm(y) is a norm with scaled affine parameters, summed over the candidates.
        gamma, beta = (
            _joined([mask[number] * row for number, row in zip(numbers, rows, strict=True)]) for rows in (gammas, betas)
        )
        return NormSum.apply(outputs, gamma, beta, len(numbers), blocks[0].project[1].eps)


def _dense(weight: Tensor, groups: int) -> Tensor:
    """The matrix [c_out, c_in] of a 1×1 convolution with groups."""
    weight = weight.flatten(1)
    return torch.block_diag(*weight.chunk(groups)) if groups > 1 else weight


def _shuffled(channels: int, groups: int, device: torch.device) -> Tensor:
    """The order of channels after a channel shuffle."""
    return torch.arange(channels, device=device).view(groups, -1).t().flatten()


def _reachable(kernels: Tensor, height: int, width: int) -> Tensor:
    """The middle of kernels [C, 1, k, k]: taps further away than the map is large meet only padding."""
    size = kernels.shape[-1]
    cut = [max(size // 2 - (length - 1), 0) for length in (height, width)]
    return kernels if not any(cut) else kernels[:, :, cut[0] : size - cut[0], cut[1] : size - cut[1]]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [C] and covariance [C, C] of the pixels of [N, C, H, W], in float32 at least."""
    with torch.autocast(x.device.type, enabled=False):
        pixels = _pixels(x).to(torch.promote_types(x.dtype, torch.float32))
        mean = pixels.mean(0)
        centred = pixels - mean
        return mean, centred.t() @ centred / len(pixels)


def _expanded(x: Tensor, moments, weight: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """relu(batch norm of the 1×1 convolution of x), [N, c_in, H, W] → [N, c_out, H, W]; the ReLU unseen by autograd.

    The mean of W x is W mean(x), its variance the diagonal of W cov(x) Wᵀ. With these `moments` of x the norm becomes part of
    the convolution's weight and bias, and the many expanded channels are not read once more for their statistics.
    """
    if moments is None:
        expanded = batch_norm(pointwise(x, weight), None, None, gamma, beta, training=True, eps=eps)
        with torch.no_grad():
            expanded.relu_()
        return expanded
    mean, covariance = moments
    with torch.autocast(x.device.type, enabled=False):
        scale = gamma * ((weight @ covariance * weight).sum(1).clamp(min=0) + eps).rsqrt()
        bias, weight = beta - scale * (weight @ mean), scale[:, None] * weight
    expanded = linear(_pixels(x), weight, bias)
    with torch.no_grad():
        expanded.relu_()
    return _image(expanded, x.shape)


def _norm_relu(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, statistics=None):
    """relu(batch norm of x), by the batch's statistics or those given, and the statistics: mean and 1 / standard deviation.

    On the CPU the result lies in a buffer that the next call uses again.
    """
    mean, rstd = statistics or (None, None)
    var = None if rstd is None else rstd.pow(-2) - eps
    arguments = (x, gamma, beta, mean, var, statistics is None, 0.0, eps)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        active, *found = torch.native_batch_norm(*arguments)
    else:
        outs = {"out": _scratch_like(x), "save_mean": gamma.new_empty(0), "save_invstd": gamma.new_empty(0)}
        active, *found = aten.native_batch_norm.out(*arguments, **outs)
    return active.relu_(), statistics or tuple(found)


_scratch: dict[torch.dtype, Tensor] = {}


def _scratch_like(x: Tensor) -> Tensor:
    """Room for what lives within one function alone.

    Allocated each time, such tensors leave holes between those that are kept for the gradient: the C library's heap would
    need twice the memory.
    """
    if x.dtype not in _scratch or _scratch[x.dtype].numel() < x.numel():
        _scratch[x.dtype] = x.new_empty(x.numel())
    return _scratch[x.dtype][: x.numel()].as_strided(x.shape, x.stride())


class DepthwiseProject(torch.autograd.Function):
    """From the active expanded channels of several candidates to their outputs, before the last norm.

    x is the output of a ReLU that autograd has not seen; its gradient is taken here. Depthwise convolution, batch norm, ReLU,
    and a 1×1 convolution for each candidate's channels: [N, Σ c_i, H, W], kernels [Σ c_i, 1, k, l], weights [c_out, c_i] →
    [N, candidates · c_out, H', W']. Of several candidates only the input is kept; what lies between is computed again for the
    gradient (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost).
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, kernels: Tensor, gamma: Tensor, beta: Tensor, stride: int, eps: float, *weights: Tensor
    ) -> Tensor:
        hidden = depthwise(x, kernels, stride)
        active, statistics = _norm_relu(hidden, gamma, beta, eps)
        kept = hidden if len(weights) == 1 else None  # a single path has memory to spare
        ctx.save_for_backward(x, kernels, gamma, beta, kept, *statistics, *weights)
        ctx.stride, ctx.eps = stride, eps
        parts = _pixels(active).split([weight.shape[1] for weight in weights], dim=1)
        return _image(_products(parts, [weight.t() for weight in weights]), hidden.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, kernels, gamma, beta, hidden, mean, rstd, *weights = ctx.saved_tensors
        learns = ctx.needs_input_grad[1]  # all weights, or none
        hidden = depthwise(x, kernels, ctx.stride) if hidden is None else hidden
        active, _ = _norm_relu(hidden, gamma, beta, ctx.eps, (mean, rstd))
        parts = _pixels(active).split([weight.shape[1] for weight in weights], dim=1)
        grads = _pixels(grad).chunk(len(weights), dim=1)
        grad_weights = [out.t() @ part if learns else None for out, part in zip(grads, parts, strict=True)]
        grad = _image(_products(grads, weights), hidden.shape)
        grad = aten.threshold_backward.grad_input(grad, active, 0, grad_input=grad)
        grad, grad_gamma, grad_beta = aten.native_batch_norm_backward(
            grad, hidden, gamma, None, None, mean, rstd, True, ctx.eps, [True, learns, learns]
        )
        grad, grad_kernels = depthwise_backward(grad, x, kernels, ctx.stride, learns)
        grad = aten.threshold_backward.grad_input(grad, x, 0, grad_input=grad)
        return grad, grad_kernels, grad_gamma, grad_beta, None, None, *grad_weights


class NormSum(torch.autograd.Function):
    """Batch norm of [N, parts · C, H, W], and the sum of its parts [N, C, H, W]."""

    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor, beta: Tensor, parts: int, eps: float) -> Tensor:
        y, mean, rstd = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, gamma, mean, rstd)
        ctx.parts, ctx.eps = parts, eps
        return _image(_pixels(y).unflatten(1, (parts, -1)).sum(dim=1), x.shape) if parts > 1 else y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, gamma, mean, rstd = ctx.saved_tensors
        grad = _image(_joined([_pixels(grad)] * ctx.parts, 1), x.shape)
        needs = list(ctx.needs_input_grad[:3])
        return *aten.native_batch_norm_backward(grad, x, gamma, None, None, mean, rstd, True, ctx.eps, needs), None, None


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """1×1 convolution of [N, c_in, H, W] with a matrix [c_out, c_in]."""
    return _image(_pixels(x) @ weight.t(), x.shape)


def depthwise(x: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """Depthwise convolution of [N, C, H, W] with kernels [C, 1, k, l] of odd sizes, zeros outside."""
    if kernels.shape[2:] == (1, 1) and stride == 1:
        return x * kernels[:, 0]
    return conv2d(x, kernels, None, stride, [size // 2 for size in kernels.shape[2:]], 1, len(kernels))


def depthwise_backward(grad: Tensor, x: Tensor, kernels: Tensor, stride: int, needs_kernels: bool):
    """Gradients of x and kernels (None where it is not needed)."""
    height, width = kernels.shape[2:]
    if (height, width) == (1, 1) and stride == 1:
        return grad * kernels[:, 0], (grad * x).sum((0, 2, 3))[:, None, None, None] if needs_kernels else None
    padding = [height // 2, width // 2]

    def gradients(grad, x, wanted):
        return aten.convolution_backward(
            grad, x, kernels, None, [stride, stride], padding, [1, 1], False, [0, 0], len(kernels), [*wanted, False]
        )

    # The CPU's convolution sums the kernels' gradient image by image; on maps smaller than the kernel that takes up to 40
    # times as long as all else together. Stacked, with the padding between them, a few tall images are the same sum.
    if needs_kernels and x.device.type == "cpu" and min(x.shape[2:]) < max(height, width):
        grad_x = gradients(grad, x, (True, False))[0]
        between = height // 2 + -(x.shape[2] + height // 2) % stride
        tall_x, tall_grad = _stacked(x, between), _stacked(grad, (x.shape[2] + between) // stride - grad.shape[2])
        return grad_x, gradients(tall_grad, tall_x, (False, True))[1]
    return gradients(grad, x, (True, needs_kernels))[:2]


def _stacked(x: Tensor, between: int) -> Tensor:
    """Images [N, C, H, W], stacked in up to eight columns, so many empty rows after each."""
    tall = pad(x.permute(0, 2, 3, 1), (0, 0, 0, 0, 0, between))
    return tall.reshape(math.gcd(len(x), 8), -1, *tall.shape[2:]).permute(0, 3, 1, 2)


def _products(lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> Tensor:
    """Matrix products, side by side."""
    if len(lefts) == 1 or torch.compiler.is_compiling():
        return _joined([left @ right for left, right in zip(lefts, rights, strict=True)], 1)
    joined = lefts[0].new_empty(len(lefts[0]), sum(right.shape[1] for right in rights))
    parts = joined.split([right.shape[1] for right in rights], dim=1)
    for left, right, part in zip(lefts, rights, parts, strict=True):
        torch.mm(left, right, out=part)
    return joined


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _pixels(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N · H · W, C], without a copy in channels_last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _image(pixels: Tensor, shape: torch.Size) -> Tensor:
    """[N · H · W, C] → [N, C, H, W] in channels_last; N, H, W as in `shape`."""
    return pixels.unflatten(0, (shape[0], shape[2], shape[3])).permute(0, 3, 1, 2)
