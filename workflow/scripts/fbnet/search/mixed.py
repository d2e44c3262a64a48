"""A searched layer of the supernet: its candidates, computed together where they are alike."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm, conv2d, linear, pad

from fbnet.network import build
from fbnet.space import OPERATORS, Cell

aten = torch.ops.aten
MANY = 16  # pixels of a batch for each channel, from which on a norm's statistics are had sooner from the moments of its input


class Joint(NamedTuple):
    """The weights of n joined candidates as their block uses them, with m expanded channels each, of some kernel sizes.

    `expand` [Σ m, c_in] and its norm's `expand_gamma`, `expand_beta` [Σ m]; of each kernel size `kernels` [Σ m, 1, k, l],
    `kernel_gammas` and `kernel_betas` [Σ m]; of each candidate `project` [c_out, m]; of the last norm `gamma`, `beta` [n c_out].
    """

    expand: Tensor
    expand_gamma: Tensor
    expand_beta: Tensor
    kernel_gammas: list[Tensor]
    kernel_betas: list[Tensor]
    gamma: Tensor
    beta: Tensor
    kernels: list[Tensor]
    project: list[Tensor]

    def each(self, function: Callable) -> "Joint":
        """The same with function(tensor, whether it goes into a product with images) in place of each tensor."""
        found = []
        for name, field in zip(self._fields, self, strict=True):
            in_product = name in ("kernels", "project")
            found.append([function(one, in_product) for one in field] if isinstance(field, list) else function(field, in_product))
        return Joint(*found)


class MixedOperation(nn.Module):
    """The candidates of a layer, blended: x [N, c_in, H, W], mask [candidates] → Σ mask · op(x) [N, c_out, H', W'].

    `ops` holds a plain module for each candidate. Inverted residuals of one kernel size share their input and their form: they
    run as one block, their channels side by side. A batch norm has its statistics per channel, so this changes nothing but the
    time (to rounding); in training mode the norms take the batch's statistics and keep none. `made_for` says for whose kernels
    the steps are shaped: those of a "cpu" or of "cuda".
    """

    def __init__(self, cells: tuple[Cell, ...], made_for: str = "cpu"):
        super().__init__()
        self.ops = nn.ModuleDict({cell.op: build(cell) for cell in cells})
        self.names = list(self.ops)
        self.size, self.made_for = (cells[0].height, cells[0].width), made_for
        operators = [OPERATORS[cell.op] for cell in cells]
        self.groups = [operator.groups for operator in operators]
        self.kernels = [operator.kernel for operator in operators]
        alike = [
            cell.norm == "bn" and operator.kind == "irf" and operator.depthwise == 1 and not operator.se
            for cell, operator in zip(cells, operators, strict=True)
        ]
        numbers = range(len(cells))
        self.joined = sorted((number for number in numbers if alike[number]), key=lambda number: self.kernels[number])
        self.apart = [number for number in numbers if not alike[number] and not cells[number].is_identity]
        through = [number for number in numbers if cells[number].is_identity or (alike[number] and cells[number].keeps_shape)]
        for name, chosen in (("joined", self.joined), ("through", through)):
            self.register_buffer(f"{name}_numbers", torch.tensor(chosen, dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor, mask: Tensor, joint: Joint | None = None) -> Tensor:
        """The sum over all candidates; `joint`, the weights of the joined ones, where they have been arranged before."""
        blends = [mask[number] * self.candidate(number)(x) for number in self.apart]
        if self.joined:
            blends += self._blocks(x, self.joined, joint or self.arranged(self.joined), mask.index_select(0, self.joined_numbers))
        if len(self.through_numbers):
            blends.append(mask.index_select(0, self.through_numbers).sum() * x)
        return sum(blends[1:], start=blends[0])

    def path(self, x: Tensor, number: int, mask: Tensor | None = None) -> Tensor:
        """One candidate alone: op(x), or mask · op(x)."""
        op = self.candidate(number)
        if self.made_for == "cpu" and number in self.joined:  # its plain depthwise gradients are slow there
            [y] = self._blocks(x, [number], self.arranged([number]), None)
            y = x + y if op.residual else y
        else:
            y = op(x)
        return y if mask is None else mask * y

    def candidate(self, number: int) -> nn.Module:
        """The plain module of a candidate."""
        return self.ops[self.names[number]]

    def arranged(self, numbers: Sequence[int], of: Callable[[nn.Parameter], Tensor] = lambda parameter: parameter) -> Joint:
        """The weights of these joined candidates, ordered by kernel size; `of` hands out a parameter's values, or a stand-in."""
        expands, norms, projects = [], [], []
        sizes: dict[int, list[tuple[Tensor, ...]]] = {}
        for number in numbers:
            block, groups = self.candidate(number), self.groups[number]
            conv, norm, _ = block.expand
            rows = (_dense(of(conv.weight), groups), of(norm.weight), of(norm.bias))
            expands.append([_shuffled(row, groups) for row in rows])
            [[conv, norm, _]] = block.depthwise
            kernels = _reachable(of(conv.weight), *self.size)
            sizes.setdefault(self.kernels[number], []).append((kernels, of(norm.weight), of(norm.bias)))
            conv, norm = block.project
            projects.append(_dense(of(conv.weight), groups))
            norms.append((of(norm.weight), of(norm.bias)))
        depthwise = [[_joined(parts) for parts in zip(*rows, strict=True)] for rows in sizes.values()]
        kernels, kernel_gammas, kernel_betas = map(list, zip(*depthwise, strict=True))
        expand = map(_joined, zip(*expands, strict=True))
        gamma, beta = map(_joined, zip(*norms, strict=True))
        return Joint(*expand, kernel_gammas, kernel_betas, gamma, beta, kernels, projects)

    def _blocks(self, x: Tensor, numbers: Sequence[int], joint: Joint, mask: Tensor | None) -> list[Tensor]:
        """Σ mask · block(x), residuals apart, over the candidates `numbers` of each kernel size; mask [candidates], None: 1."""
        sizes = [self.kernels[number] for number in numbers]
        counts = [sizes.count(size) for size in dict.fromkeys(sizes)]
        first = self.candidate(numbers[0])
        stride, eps = first.depthwise[0][0].stride[0], first.expand[1].eps
        norms = [joint.gamma, joint.beta]
        if mask is not None:  # Σ mask · norm(y) is a norm with scaled affine parameters, summed over the candidates
            norms = [(mask[:, None] * row.unflatten(0, (len(mask), -1))).flatten() for row in norms]
        norms = [row.split([count * len(row) // len(numbers) for count in counts]) for row in norms]
        actives, projects = _expanded(x, joint, eps, len(numbers) > 1), iter(joint.project)
        parts = zip(actives, joint.kernels, joint.kernel_gammas, joint.kernel_betas, *norms, counts, strict=True)
        blends = []
        for active, kernels, kernel_gamma, kernel_beta, gamma, beta, count in parts:
            weights = [next(projects).to(active.dtype) for _ in range(count)]
            hidden = kernels.to(active.dtype), kernel_gamma, kernel_beta
            outputs = DepthwiseProject.apply(active, *hidden, stride, eps, self.made_for, *weights)
            blends.append(NormSum.apply(outputs, gamma, beta, count, eps))
        return blends


def _dense(weight: Tensor, groups: int) -> Tensor:
    """The matrix [c_out, c_in] of a 1×1 convolution with groups."""
    weight = weight.flatten(1)
    return torch.block_diag(*weight.chunk(groups)) if groups > 1 else weight


def _shuffled(rows: Tensor, groups: int) -> Tensor:
    """Rows, one a channel, in the order after a channel shuffle."""
    return rows.unflatten(0, (groups, -1)).transpose(0, 1).flatten(0, 1) if groups > 1 else rows


def _reachable(kernels: Tensor, height: int, width: int) -> Tensor:
    """The middle of kernels [C, 1, k, k]: taps further away than the map is large meet only padding."""
    size = kernels.shape[-1]
    cut = [max(size // 2 - (length - 1), 0) for length in (height, width)]
    return kernels if not any(cut) else kernels[:, :, cut[0] : size - cut[0], cut[1] : size - cut[1]]


def computed_in(x: Tensor) -> torch.dtype:
    """The data type in which a product with x is computed."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _expanded(x: Tensor, joint: Joint, eps: float, several: bool) -> list[Tensor]:
    """relu(batch norm of the 1×1 convolution of x) [N, m, H, W] for each kernel size; the ReLU unseen by autograd.

    The mean of W x is W mean(x), its variance the diagonal of W cov(x) Wᵀ. Where several candidates share x and its pixels are
    many, the norm becomes by these moments part of the convolution's weight and bias, and the many expanded channels are not
    read once more for their statistics.
    """
    rows, pixels = [len(kernels) for kernels in joint.kernels], _pixels(x)
    gamma, beta = joint.expand_gamma, joint.expand_beta
    if several and len(pixels) >= MANY * x.shape[1]:
        with torch.autocast(x.device.type, enabled=False):
            mean, covariance = _moments(pixels)
            scale = gamma * ((joint.expand @ covariance * joint.expand).sum(1).clamp(min=0) + eps).rsqrt()
            bias, weight = beta - scale * (joint.expand @ mean), scale[:, None] * joint.expand
        bias, weight = bias.to(computed_in(x)), weight.to(computed_in(x))  # once for all sizes
        parts = zip(weight.split(rows), bias.split(rows), strict=True)
        expanded = [_image(linear(pixels, *part), x.shape) for part in parts]
    else:
        parts = zip(joint.expand.split(rows), gamma.split(rows), beta.split(rows), strict=True)
        expanded = [
            batch_norm(_image(pixels @ weight.t(), x.shape), None, None, *affine, training=True, eps=eps)
            for weight, *affine in parts
        ]
    with torch.no_grad():
        return [part.relu_() for part in expanded]


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [C] and covariance [C, C] of pixels [P, C], in float32 at least."""
    pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    mean = pixels.mean(0)
    centred = pixels - mean
    return mean, centred.t() @ centred / len(pixels)


def _norm_relu(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, made_for: str, statistics=None):
    """relu(batch norm of x), by the batch's statistics or those given, and the statistics: mean and 1 / standard deviation.

    Made for the CPU, the result lies in a buffer that the next call uses again.
    """
    mean, rstd = statistics or (None, None)
    var = None if rstd is None else rstd.pow(-2) - eps
    arguments = (x, gamma, beta, mean, var, statistics is None, 0.0, eps)
    if made_for != "cpu" or torch.compiler.is_compiling():
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
        ctx, x: Tensor, kernels: Tensor, gamma: Tensor, beta: Tensor, stride: int, eps: float, made_for: str, *weights: Tensor
    ) -> Tensor:
        hidden = depthwise(x, kernels, stride)
        active, statistics = _norm_relu(hidden, gamma, beta, eps, made_for)
        kept = hidden if len(weights) == 1 else None  # a single path has memory to spare
        ctx.save_for_backward(x, kernels, gamma, beta, kept, *statistics, *weights)
        ctx.stride, ctx.eps, ctx.made_for = stride, eps, made_for
        parts = _pixels(active).split([weight.shape[1] for weight in weights], dim=1)
        return _image(_products(parts, [weight.t() for weight in weights]), hidden.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, kernels, gamma, beta, hidden, mean, rstd, *weights = ctx.saved_tensors
        learns = ctx.needs_input_grad[1]  # all weights, or none
        hidden = depthwise(x, kernels, ctx.stride) if hidden is None else hidden
        active, _ = _norm_relu(hidden, gamma, beta, ctx.eps, ctx.made_for, (mean, rstd))
        parts = _pixels(active).split([weight.shape[1] for weight in weights], dim=1)
        grads = _pixels(grad).chunk(len(weights), dim=1)
        grad_weights = [out.t() @ part if learns else None for out, part in zip(grads, parts, strict=True)]
        grad = _image(_products(grads, weights), hidden.shape)
        grad = aten.threshold_backward.grad_input(grad, active, 0, grad_input=grad)
        grad, grad_gamma, grad_beta = aten.native_batch_norm_backward(
            grad, hidden, gamma, None, None, mean, rstd, True, ctx.eps, [True, learns, learns]
        )
        grad, grad_kernels = depthwise_backward(grad, x, kernels, ctx.stride, learns, ctx.made_for)
        grad = aten.threshold_backward.grad_input(grad, x, 0, grad_input=grad)
        return grad, grad_kernels, grad_gamma, grad_beta, None, None, None, *grad_weights


class NormSum(torch.autograd.Function):
    """Batch norm of [N, parts · C, H, W], and the sum of its parts [N, C, H, W]."""

    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor, beta: Tensor, parts: int, eps: float) -> Tensor:
        y, mean, rstd = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, gamma, mean, rstd)
        ctx.parts, ctx.eps = parts, eps
        # CUDA's autocast would have a sum in float32, and the next layer with it, were its data type not said
        return _image(_pixels(y).unflatten(1, (parts, -1)).sum(dim=1, dtype=y.dtype), x.shape) if parts > 1 else y

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


def depthwise_backward(grad: Tensor, x: Tensor, kernels: Tensor, stride: int, needs_kernels: bool, made_for: str = "cpu"):
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
    if needs_kernels and made_for == "cpu" and min(x.shape[2:]) < max(height, width):
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
