"""Operators: golden counts, the one registry, and what each does forward, backward, exported and measured."""

import csv

import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from conftest import SHARED, needs_shared
from fbnet.errors import InputError
from fbnet.latency import Target
from fbnet.latency.torch_engine import TorchEngine
from fbnet.network import Network, build, size
from fbnet.network.blocks import Shift
from fbnet.search import StochasticSupernet
from fbnet.search.gumbel import soft_masks
from fbnet.space import CANDIDATES, OPERATORS, Cell, read_space

SHAPES = {  # c_in, c_out, size, stride
    "smaller": (16, 24, 12, 2),
    "same": (32, 32, 6, 1),
}


def cell_of(op, shape, expansion=6, **options):
    c_in, c_out, size, stride = SHAPES[shape]
    return Cell("1", op, c_in, c_out, size, size, stride, OPERATORS[op].expansion or expansion, **options)


@needs_shared
def test_parameters_and_macs_are_the_reference_s():
    with (SHARED / "data/reference_operators.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["op"] for row in rows} == set(CANDIDATES)
    assert len(rows) == 2 * 39
    for row in rows:
        expansion = OPERATORS[row["op"]].expansion or int(row["expansion"])
        side, stride = int(row["size"]), int(row["stride"])
        cell = Cell("1", row["op"], int(row["c_in"]), int(row["c_out"]), side, side, stride, expansion)
        macs, params = size([cell])
        assert params == int(row["params"]), row
        out = build(cell).eval()(torch.zeros(1, cell.c_in, side, side))
        if row["op"] == "ir_k1" and stride == 2:  # the reference forgets its stride
            assert out.shape == (1, cell.c_out, 28, 28)
        else:
            assert macs == int(row["macs"]), row
            assert out.shape == (1, cell.c_out, int(row["out_size"]), int(row["out_size"])), row


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", CANDIDATES)
def test_every_operator_runs_forward_and_backward_and_is_measured(op, shape):
    torch.manual_seed(0)
    cell = cell_of(op, shape)
    block = build(cell).train()
    x = torch.randn(4, cell.c_in, cell.height, cell.width, requires_grad=True)
    y = block(x)
    assert y.shape == (4, cell.c_out, cell.height // cell.stride, cell.width // cell.stride)
    y.square().sum().backward()
    assert x.grad.abs().sum() > 0
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert (TorchEngine([cell], Target()).network([cell]).time() > 0) != cell.is_identity


class Together(nn.Module):
    """Operators side by side, so that one export, most of which is its start, serves many: x [N, C, H, W] → a tensor of each."""

    def __init__(self, ops, shape):
        super().__init__()
        self.blocks = nn.ModuleList(build(cell_of(op, shape)) for op in ops)

    def forward(self, x):
        return [block(x) + 0.0 for block in self.blocks]  # also of an identity an output of its own


@pytest.mark.xdist_group("export")  # whose worker exports anyway: to start with that takes seconds
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ops", [CANDIDATES[start::3] for start in range(3)], ids=["first", "second", "third"])
def test_every_operator_is_exported(ops, shape, tmp_path):
    torch.manual_seed(0)
    operators = Together(ops, shape)
    c_in, _, size, _ = SHAPES[shape]
    operators.train()(torch.randn(4, c_in, size, size))  # norms have seen something
    operators.eval()
    images = torch.randn(3, c_in, size, size)
    with torch.no_grad():
        program = torch.export.export(operators, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.onnx.export(program, dynamo=True, input_names=["x"], verbose=False).save(tmp_path / "blocks.onnx")
        expected = operators(images[:2])
        again = program.module()(images[:2])
    session = onnxruntime.InferenceSession(tmp_path / "blocks.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": images[:2].numpy()})
    assert len(outputs) == len(ops)
    for op, wanted, same, found in zip(ops, expected, again, outputs, strict=True):
        assert torch.equal(same, wanted), op
        assert torch.allclose(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max()), op


@pytest.mark.parametrize("op", CANDIDATES)
def test_supernet_table_and_network_build_the_same_module(op):
    space = read_space({"base": "tiny", "candidates": ["skip", op] if op != "skip" else [op], "expansion": 2})
    engine = TorchEngine(space.cells(10), Target())
    path = space.network_cells([op] * 3, 10)
    assert len(engine.network(path).laps()) == sum(not cell.is_identity for cell in path)
    network = Network(space, [op] * 3, 10)
    supernet = StochasticSupernet(space, 10, free_table(space))
    for cell, of_network, mixed in zip(space.path([op] * 3), network.layers, supernet.layers, strict=True):
        for other in (mixed.ops[op], *([] if cell.is_identity else [engine.modules[cell]])):  # an identity is not run
            # but for the statistics that the supernet's norms do not keep
            assert str(other).replace("running_stats=False", "running_stats=True") == str(of_network)
            assert [(name, p.shape) for name, p in other.state_dict().items()] == [
                (name, p.shape) for name, p in of_network.state_dict().items()
            ]
    assert size(space.network_cells([op] * 3, 10))[1] == sum(p.numel() for p in network.parameters())


def free_table(space):
    from fbnet.latency import LatencyTable

    return LatencyTable(space, (1.0, 1.0, 1.0), tuple((1.0,) * len(layer) for layer in space.layers))


def test_a_supernet_of_all_operators_learns_a_step():
    torch.manual_seed(0)
    space = read_space({"base": "fbnet_all", "resolution": 16, "width": 0.5})
    assert [len(layer) for layer in space.layers] == [39] * 22
    supernet = StochasticSupernet(space, 10, free_table(space))
    before = [theta.clone() for theta in supernet.theta]
    optimizer = torch.optim.Adam(supernet.theta, 0.01)
    supernet.learn("theta")
    masks = soft_masks(supernet.logits(), torch.zeros(22, 39), 5.0)
    logits, latency_us = supernet(torch.randn(4, 3, 16, 16), masks), supernet.latency_us(masks)
    (logits.square().mean() + latency_us).backward()
    optimizer.step()
    assert logits.shape == (4, 10)
    assert latency_us.item() == pytest.approx(25.0, rel=1e-4)
    assert all(not torch.equal(theta, old) for theta, old in zip(supernet.theta, before, strict=True))


def test_every_network_of_a_1x1_map_runs_in_training_and_evaluation():
    space = read_space({"base": "fbnet_32", "candidates": "all", "expansion": 2})
    for op in CANDIDATES:
        network = Network(space, [op] * 22, 10)
        assert network.train()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)  # the reference pools 7×7 of a 1×1 map


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("side", [4, 7, 9])
def test_every_operator_keeps_its_stride_at_odd_sizes(stride, side):
    for op in CANDIDATES:
        cell = Cell("1", op, 8, 16, side, side, stride, OPERATORS[op].expansion or 3)
        assert build(cell).eval()(torch.zeros(1, 8, side, side)).shape[1:] == (16, -(-side // stride), -(-side // stride)), op


def test_the_shift_is_the_depthwise_convolution_that_it_stands_for():
    for channels, stride in ((60, 1), (53, 2), (12, 1)):
        kernel = torch.zeros(channels, 1, 5, 5)
        share, done = channels // 25, 0
        for tap in range(25):
            count = share + (channels % 25 if tap == 12 else 0)
            kernel[done : done + count, 0, tap // 5, tap % 5] = 1
            done += count
        x = torch.randn(2, channels, 7, 9)
        expected = nn.functional.conv2d(x, kernel, stride=stride, padding=2, groups=channels)
        assert torch.equal(Shift(channels, 5, stride)(x), expected)


NORMS = {"bn": nn.BatchNorm2d, "gn4": nn.GroupNorm, "frozen": FrozenBatchNorm2d, "none": type(None)}


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_follows_every_convolution(norm):
    for op in CANDIDATES:
        block = build(cell_of(op, "smaller", norm=norm))
        kinds = {type(module) for module in block.modules() if isinstance(module, tuple(NORMS.values()))}
        assert kinds == ({NORMS[norm]} if norm != "none" else set()), op
    block = build(cell_of("ir_k3_e3", "same", norm=norm))
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    assert all((conv.bias is not None) == (norm == "none") for conv in convolutions)
    weights = 32 * 96 + 96 * 9 + 96 * 32
    extra = {"bn": 2 * (96 + 96 + 32), "gn4": 2 * (96 + 96 + 32), "frozen": 0, "none": 96 + 96 + 32}
    assert size([cell_of("ir_k3_e3", "same", norm=norm)]) == (weights * 36, weights + extra[norm])


@pytest.mark.parametrize("norm", NORMS)
def test_a_search_space_of_any_norm_trains(norm):
    space = read_space({"base": "tiny", "norm": norm, "dropout": 0.5})
    supernet = StochasticSupernet(space, 10, free_table(space))
    supernet.learn("weights")
    supernet(torch.randn(8, 3, 16, 16), supernet.logits().softmax(1)).square().mean().backward()
    assert all(p.grad is not None for p in supernet.weights())


def test_dropout_drops_features_in_training_alone(tiny):
    torch.manual_seed(0)
    space = read_space(tiny.definition | {"dropout": 0.5})
    network = Network(space, ["skip"] * 3, 10)
    seen = []
    network.classifier.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = torch.randn(16, 3, 16, 16)
    network.train()(x)
    network.eval()(x)
    dropped = [(features == 0).flatten(2).all(2).float().mean().item() for features in seen]
    assert 0.4 < dropped[0] - dropped[1] < 0.6 + dropped[1]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            Cell("1", "ir_k3_s4", 18, 24, 8, 8, 1, 4),
            "ir_k3_s4 cannot be built for 18 → 24 channels, 8×8, stride 1: 18 channels do",
        ),
        (Cell("1", "shuffle", 16, 22, 8, 8, 1, 6), "shuffle cannot be built for 16 → 22 .* 22 channels do not divide into 4"),
        (Cell("1", "ir_k1", 16, 24, 8, 8, 3, 6), "ir_k1 cannot be built for .* stride 3: the stride must be one of 1, 2, 4"),
        (Cell("1", "skip", 16, 24, 2, 2, 4), "skip cannot be built for 16 → 24 channels, 2×2, stride 4: the stride is larger"),
        (Cell("1", "basic_block", 16, 20, 8, 8, 1, norm="gn8"), "20 channels do not divide into the 8 groups of norm gn8"),
        (Cell("1", "ir_k3_e1", 12, 16, 8, 8, 1, norm="gn8"), "12 channels do not divide into the 8 groups of norm gn8"),
    ],
)
def test_a_shape_that_cannot_be_served_is_refused(cell, message):
    with pytest.raises(InputError, match=message):
        build(cell)


@pytest.mark.parametrize("op", ["skip", "ir_k1"])
def test_a_strided_1x1_convolution_of_few_channels_has_right_gradients_on_the_cpu(op):
    """PyTorch's own are wrong there, or crash the program."""
    cell = Cell("1", op, 8, 16, 64, 64, 2, 1, "bn")
    block, gradients = build(cell).double(), []
    x = torch.randn(8, 8, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    state = {name: value.clone() for name, value in block.state_dict().items()}
    for dtype, memory_format in ((torch.double, torch.contiguous_format), (torch.float32, torch.channels_last)):
        block = build(cell).to(dtype, memory_format=memory_format)
        block.load_state_dict(state)
        for _ in range(4):
            block.zero_grad()
            block(x.to(dtype, memory_format=memory_format)).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten().double() for parameter in block.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3 * gradients[0].abs().max())
    block.eval()
    with torch.no_grad():
        evaluated = block(x.float())
        assert evaluated.shape == (8, 16, 32, 32)
