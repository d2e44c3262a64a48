"""The candidates of a layer, computed together, are the plain sum over the candidates: outputs and every gradient."""

import shutil

import pytest
import torch
from torch.nn.functional import conv2d

from conftest import SPACES
from fbnet.network import Network, subnetwork_weights
from fbnet.search import StochasticSupernet
from fbnet.search.fused import depthwise, depthwise_backward
from fbnet.search.gumbel import hard_masks, soft_masks
from fbnet.search.mixed import MixedOperation
from fbnet.space import CANDIDATES, OPERATORS, Cell, read_space

SHAPES = [  # c_in, c_out, size, stride
    (16, 16, 16, 1),  # many pixels a channel: the first norm from moments
    (16, 24, 8, 2),
    (32, 32, 4, 1),  # few
    (64, 64, 2, 1),
    (64, 112, 2, 2),
    (16, 16, 1, 1),
]
NINE = ("ir_k3_e1", "ir_k3_s2", "ir_k3_e3", "ir_k3_e6", "ir_k5_e1", "ir_k5_s2", "ir_k5_e3", "ir_k5_e6", "skip")


def mixed(names, c_in, c_out, size, stride, norm="bn", shared=False) -> MixedOperation:
    torch.manual_seed(0)
    cells = [Cell("1", name, c_in, c_out, size, size, stride, OPERATORS[name].expansion or 4, norm) for name in names]
    layer = MixedOperation(tuple(cells), shared=shared).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # else every gamma is 1, and every beta 0
    return layer


def both(layer: MixedOperation, size: int, chosen=None, dtype=torch.float64, images=8):
    """Output and gradients of x, mask and parameters: computed together, and plainly."""
    layer.to(dtype)
    channels = layer.cells[0].c_in
    torch.manual_seed(1)
    start = 1 + 2 * torch.randn(images, channels, size, size, dtype=dtype)
    numbers = range(len(layer.cells)) if chosen is None else [chosen]
    found = []
    for together in (True, False):
        x = start.clone(memory_format=torch.channels_last).requires_grad_()
        mask = torch.linspace(0.05, 0.3, len(layer.cells), dtype=dtype).requires_grad_()
        if not together:
            y = sum(mask[number] * layer.candidate(number)(x) for number in numbers)
        else:
            y = layer(x, mask) if chosen is None else layer.path(x, chosen, mask[chosen])
        target = torch.sin(torch.arange(y.numel(), dtype=dtype)).view_as(y)
        inputs = [x, mask, *layer.parameters()]
        gradients = torch.autograd.grad((y * target).sum() / len(y), inputs, allow_unused=True)
        found.append([y.detach(), *gradients])
    return found


def equal(layer, together, plain, tolerance):
    names = ["y", "x", "mask", *(name for name, _ in layer.named_parameters())]
    for name, ours, theirs in zip(names, together, plain, strict=True):
        assert (ours is None) == (theirs is None), name
        if theirs is not None:
            assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1), name


@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nine_candidates_together_are_the_plain_sum(shape, shared):
    layer = mixed(NINE, *shape, shared=shared)
    for chosen in (None, *range(9)):
        equal(layer, *both(layer, shape[2], chosen), 1e-7)


@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[4]], ids=str)
def test_they_are_in_float32_too(shape, shared):
    layer = mixed(NINE, *shape, shared=shared)
    equal(layer, *both(layer, shape[2], dtype=torch.float32, images=32), 1e-4)


@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
@pytest.mark.parametrize("norm", ["bn", "gn4", "frozen", "none"])
def test_all_operators_and_norms_are(norm, shared):
    names = [name for name in CANDIDATES if name != "skip"]
    layer = mixed(names, 16, 16, 4, 1, norm, shared)
    for chosen in (None, *range(len(names))) if shared else [None]:
        equal(layer, *both(layer, 4, chosen), 1e-7)


def test_what_a_family_lacks_is_no_candidate_s():
    """The largest kernel and the largest expansion of a family may be of two candidates, and neither of some kernel sizes."""
    layer = mixed(["ir_k7_e1", "ir_k3_e6", "ir_k5_e3", "ir_k5_e1"], 16, 24, 8, 2, shared=True)
    assert [name for name, _ in layer.ops.named_children()] == ["irf"]
    assert layer.ops.irf.depthwise[0][0].weight.shape == (96, 1, 7, 7)
    for chosen in (None, *range(4)):
        equal(layer, *both(layer, 8, chosen), 1e-7)


def test_without_gradients_of_weights_those_of_the_masks_stay():
    layer = mixed(NINE, 16, 16, 4, 1)
    wanted = both(layer, 4)[1][2]
    layer.requires_grad_(False)
    torch.manual_seed(1)
    x = 1 + 2 * torch.randn(8, 16, 4, 4, dtype=torch.float64)
    mask = torch.linspace(0.05, 0.3, 9, dtype=torch.float64).requires_grad_()
    y = layer(x.contiguous(memory_format=torch.channels_last), mask)
    ((y * torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view_as(y)).sum() / len(y)).backward()
    assert torch.allclose(mask.grad, wanted)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize(("size", "kernel"), [(1, 1), (2, 3), (3, 5), (4, 5), (4, 7), (8, 3)])
def test_depthwise_gradients(size, kernel, stride):
    if stride > size:
        pytest.skip("no such cell")
    torch.manual_seed(0)
    x = torch.randn(6, 5, size, size, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    kernels = torch.randn(5, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    y = conv2d(x, kernels, None, stride, kernel // 2, 1, 5)
    assert torch.allclose(depthwise(x, kernels, stride), y)
    grad = torch.randn_like(y)
    wanted = torch.autograd.grad(y, (x, kernels), grad)
    found = depthwise_backward(grad, x.detach(), kernels.detach(), stride, True)
    assert all(map(torch.allclose, found, wanted))
    assert depthwise_backward(grad, x.detach(), kernels.detach(), stride, False)[1] is None


@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
def test_the_supernet_of_one_path_is_its_network(tiny, tiny_table, shared):
    """The weights are interchangeable: a single path of the supernet is the plain network with the same weights."""
    supernet = StochasticSupernet(tiny, 10, tiny_table, shared=shared).train()
    x = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    for chosen in ([0, 1, 2], [3, 2, 0]):
        ops = [layer[number].op for layer, number in zip(tiny.layers, chosen, strict=True)]
        network = Network(tiny, ops, 10).train()
        network.load_state_dict(subnetwork_weights(supernet.state_dict(), tiny, ops))
        masks = hard_masks(supernet.logits().softmax(1), torch.tensor(chosen))
        assert torch.allclose(supernet(x, None, chosen), network(x), atol=1e-5)
        assert torch.allclose(supernet(x, masks[range(3), chosen], chosen), network(x), atol=1e-5)
        assert torch.allclose(supernet(x, masks), network(x), atol=1e-5)
        assert supernet.latency_us(masks).item() == pytest.approx(tiny_table.predict(ops))


def test_layers_may_have_different_candidates(tiny_table):
    space = read_space(SPACES / "tiny.yaml")
    table = tiny_table
    fewer = tuple(layer[: 4 - number] for number, layer in enumerate(space.layers))
    object.__setattr__(space, "layers", fewer)
    object.__setattr__(table, "space", space)
    object.__setattr__(table, "operators_us", tuple(row[: 4 - number] for number, row in enumerate(table.operators_us)))
    supernet = StochasticSupernet(space, 10, table, "zeros")
    masks = soft_masks(supernet.logits(), torch.zeros(3, 4), 1.0)
    assert masks[2].tolist() == [0.5, 0.5, 0, 0]
    supernet.latency_us(masks).backward()
    assert all(theta.grad.isfinite().all() for theta in supernet.theta)
    expected = sum(table.fixed_us) + sum(sum(row) / len(row) for row in table.operators_us)
    assert supernet.latency_us(masks).item() == pytest.approx(expected)


def test_a_single_path_gives_theta_the_gradient_of_gdas():
    """Of the loss by the drawn operator's mask alone, and through the softmax to every logit; latency by all masks."""
    logits = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([[0.1, 0.9, -0.3]], dtype=torch.float64)
    soft = soft_masks(logits, noise, 0.7)
    hard = hard_masks(soft, torch.tensor([1]))
    assert hard.tolist() == [[0, 1, 0]]
    [found] = torch.autograd.grad(3 * hard[0, 1], logits)
    [wanted] = torch.autograd.grad(3 * soft_masks(logits, noise, 0.7)[0, 1], logits)
    assert torch.equal(found, wanted)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
def test_compiled_is_eager(shared):
    layer = mixed(("ir_k3_e1", "ir_k3_e3", "ir_k3_s2", "skip"), 16, 16, 4, 1, shared=shared)
    found = []
    for forward in (layer, torch.compile(layer, dynamic=False, fullgraph=True)):
        torch.manual_seed(0)
        x = torch.randn(16, 16, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
        mask = torch.tensor([0.4, 0.3, 0.2, 0.1], requires_grad=True)
        y = forward(x, mask)
        found.append((y.detach(), *torch.autograd.grad(y.square().mean(), [x, mask, *layer.parameters()])))
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
@pytest.mark.parametrize("chosen", [None, 3], ids=["soft", "single path"])
def test_in_bfloat16_statistics_and_gradients_of_weights_stay_float32(chosen, shared):
    layer = mixed(NINE, 16, 16, 8, 1, shared=shared)
    x = torch.randn(32, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    mask = torch.full((9,), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, mask) if chosen is None else layer.path(x, chosen, mask[chosen])
    wanted = layer(x, mask) if chosen is None else layer.path(x, chosen, mask[chosen])
    assert (y - wanted).abs().max() < 0.05 * wanted.abs().max()
    y.float().square().mean().backward()
    assert all(parameter.grad is None or parameter.grad.dtype == torch.float32 for parameter in layer.parameters())
    assert layer.ops[layer.owners[3]].expand[0].weight.grad is not None
