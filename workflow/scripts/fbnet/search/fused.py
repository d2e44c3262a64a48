"""A block of inverted residuals in few passes over its channels: functions with gradients of their own."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm, conv2d, linear, pad

aten = torch.ops.aten
MANY = 16  # pixels of a batch for each channel, from which on a norm's statistics are had sooner from the moments of its input


def computed_in(x: Tensor) -> torch.dtype:
    """The data type in which a product with x is computed."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def expanded(
    x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, widths: Sequence[int], eps: float, several: bool
) -> list[Tensor]:
    """relu(batch norm of the 1×1 convolution of x) in parts [N, width, H, W]; the ReLU unseen by autograd.

    `weight` [Σ widths, c_in]. The mean of W x is W mean(x), its variance the diagonal of W cov(x) Wᵀ. Where several candidates
    share x and its pixels are many, the norm becomes by these moments part of the convolution's weight and bias, and the many
    expanded channels are not read once more for their statistics.
    """
    pixels = _pixels(x)
    if several and len(pixels) >= MANY * x.shape[1]:
        with torch.autocast(x.device.type, enabled=False):
            mean, covariance = _moments(pixels)
            scale = gamma * ((weight @ covariance * weight).sum(1).clamp(min=0) + eps).rsqrt()
            bias, weight = beta - scale * (weight @ mean), scale[:, None] * weight
        bias, weight = bias.to(computed_in(x)), weight.to(computed_in(x))  # once for all parts
        parts = zip(weight.split(widths), bias.split(widths), strict=True)
        found = [_image(linear(pixels, *part), x.shape) for part in parts]
    else:
        parts = zip(weight.split(widths), gamma.split(widths), beta.split(widths), strict=True)
        found = [
            batch_norm(_image(pixels @ rows.t(), x.shape), None, None, *affine, training=True, eps=eps) for rows, *affine in parts
        ]
    with torch.no_grad():
        return [part.relu_() for part in found]


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
    [N, candidates · c_out, H', W']. If `adding`, each candidate has the channels of those before it too. Of several candidates
    only the input is kept; what lies between is computed again for the gradient (Chen et al. 2016, Training Deep Nets with
    Sublinear Memory Cost).
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        kernels: Tensor,
        gamma: Tensor,
        beta: Tensor,
        stride: int,
        eps: float,
        made_for: str,
        adding: bool,
        *weights: Tensor,
    ) -> Tensor:
        hidden = depthwise(x, kernels, stride)
        active, statistics = _norm_relu(hidden, gamma, beta, eps, made_for)
        kept = hidden if len(weights) == 1 else None  # a single path has memory to spare
        ctx.save_for_backward(x, kernels, gamma, beta, kept, *statistics, *weights)
        ctx.stride, ctx.eps, ctx.made_for, ctx.adding = stride, eps, made_for, adding
        parts = _pixels(active).split([weight.shape[1] for weight in weights], dim=1)
        outputs = _products(parts, [weight.t() for weight in weights])
        if adding:
            for before, after in pairwise(outputs.chunk(len(weights), dim=1)):
                after += before
        return _image(outputs, hidden.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, kernels, gamma, beta, hidden, mean, rstd, *weights = ctx.saved_tensors
        learns = ctx.needs_input_grad[1]  # all weights, or none
        hidden = depthwise(x, kernels, ctx.stride) if hidden is None else hidden
        active, _ = _norm_relu(hidden, gamma, beta, ctx.eps, ctx.made_for, (mean, rstd))
        parts = _pixels(active).split([weight.shape[1] for weight in weights], dim=1)
        grads = _pixels(grad).chunk(len(weights), dim=1)
        if ctx.adding:
            grads = [*accumulate(reversed(grads))][::-1]
        grad_weights = [out.t() @ part if learns else None for out, part in zip(grads, parts, strict=True)]
        grad = _image(_products(grads, weights), hidden.shape)
        grad = aten.threshold_backward.grad_input(grad, active, 0, grad_input=grad)
        grad, grad_gamma, grad_beta = aten.native_batch_norm_backward(
            grad, hidden, gamma, None, None, mean, rstd, True, ctx.eps, [True, learns, learns]
        )
        grad, grad_kernels = depthwise_backward(grad, x, kernels, ctx.stride, learns, ctx.made_for)
        grad = aten.threshold_backward.grad_input(grad, x, 0, grad_input=grad)
        return grad, grad_kernels, grad_gamma, grad_beta, None, None, None, None, *grad_weights


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
        grad = _image(side_by_side([_pixels(grad)] * ctx.parts, 1), x.shape)
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
        return side_by_side([left @ right for left, right in zip(lefts, rights, strict=True)], 1)
    joined = lefts[0].new_empty(len(lefts[0]), sum(right.shape[1] for right in rights))
    parts = joined.split([right.shape[1] for right in rights], dim=1)
    for left, right, part in zip(lefts, rights, parts, strict=True):
        torch.mm(left, right, out=part)
    return joined


def side_by_side(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _pixels(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N · H · W, C], without a copy in channels_last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _image(pixels: Tensor, shape: torch.Size) -> Tensor:
    """[N · H · W, C] → [N, C, H, W] in channels_last; N, H, W as in `shape`."""
    return pixels.unflatten(0, (shape[0], shape[2], shape[3])).permute(0, 3, 1, 2)
