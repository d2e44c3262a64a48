"""Operators and spaces: golden counts, the one registry, and what is refused."""

import csv

import pytest
import torch
import yaml

from conftest import SHARED, SPACES, needs_shared
from fbnet.blocks import build, size
from fbnet.errors import InputError
from fbnet.network import Network, subnetwork_weights
from fbnet.operators import CANDIDATES
from fbnet.space import Cell, make_space, read_space
from fbnet.supernet import Supernet, learning

FBNET_C = (
    "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k5_e6 k5_e3 "
    "k5_e6 k5_e6 k5_e6 k5_e6 k3_e6"
)
FBNET_C = [name if name == "skip" else f"ir_{name}" for name in FBNET_C.split()]


@needs_shared
def test_parameters_and_macs_of_the_candidates_are_the_reference_s():
    with (SHARED / "data/reference_operators.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["op"] in CANDIDATES]
    assert len(rows) == 2 * len(CANDIDATES)
    for row in rows:
        cell = Cell("1", row["op"], int(row["c_in"]), int(row["c_out"]), int(row["size"]), int(row["size"]), int(row["stride"]))
        assert size([cell]) == (int(row["macs"]), int(row["params"])), row
        out = build(cell).eval()(torch.zeros(1, cell.c_in, cell.height, cell.width))
        assert out.shape == (1, cell.c_out, int(row["out_size"]), int(row["out_size"]))


def test_fbnet_c_has_the_published_size():
    space = read_space(SPACES / "fbnet_224.yaml")
    macs, params = size((space.stem, *space.path(FBNET_C), space.head, space.classifier(1000)))
    assert (macs, params) == (384_960_160, 5_572_200)
    network = Network(space, FBNET_C, 1000)
    assert sum(p.numel() for p in network.parameters()) == params
    assert sum(p.numel() for name, p in network.named_parameters() if p.dim() > 1) == 5_526_832


@pytest.mark.parametrize(("name", "final"), [("fbnet_cifar", 4), ("fbnet_32", 1), ("fbnet_224", 7)])
def test_spaces_have_22_layers_of_9_and_end_where_they_say(name, final):
    space = read_space(SPACES / f"{name}.yaml")
    assert [len(layer) for layer in space.layers] == [9] * 22
    assert [layer[0].c_out for layer in space.layers] == [16] + [c for c in (24, 32, 64, 112, 184) for _ in range(4)] + [352]
    assert (space.head.height, space.head.width) == (final, final)


def test_supernet_and_network_build_the_same_modules_and_compute_the_same(tiny, tiny_table):
    torch.manual_seed(0)
    ops = ["ir_k3_s2", "ir_k5_e3", "skip"]
    supernet = Supernet(tiny, 10, tiny_table)
    network = Network(tiny, ops, 10)
    network.load_state_dict(subnetwork_weights(supernet.state_dict(), ops))  # strict: same names and shapes
    for layer, module, op in zip(supernet.layers, network.layers, ops, strict=True):
        assert str(layer.ops[op]) == str(module)
    for theta, layer, op in zip(supernet.theta, tiny.layers, ops, strict=True):
        theta.data = torch.tensor([1e4 if cell.op == op else 0.0 for cell in layer])
    x = torch.randn(8, 3, 16, 16)
    with learning(supernet, "theta"), torch.no_grad():
        logits, latency_us = supernet(x, temperature=1.0)
        assert torch.allclose(logits, network.train()(x), atol=1e-5)
    assert latency_us.item() == pytest.approx(tiny_table.predict(ops))
    assert supernet.architecture() == tuple(ops)


def test_every_network_of_a_1x1_map_runs_in_training_and_evaluation():
    space = read_space(SPACES / "fbnet_32.yaml")
    for op in CANDIDATES:
        network = Network(space, [op] * 22, 10)
        assert network.train()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)  # the reference pools 7×7 of a 1×1 map


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": []}, "candidates is []"),
        ({"candidates": ["ir_k3_e9"]}, "did you mean ir_k3_e"),
        ({"candidates": ["skip", "skip"]}, "names skip 2 times"),
        ({"candidates": ["pool_fc"]}, "unknown operator 'pool_fc'"),
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": True}, "resolution is True"),
        ({"stem": {"channels": 8}}, "stem lacks the key 'stride'"),
        ({"stem": {"channels": 8, "stride": 3}}, "stem.stride is 3"),
        ({"stages": []}, "stages must be a list"),
        ({"stages": [{"layers": 1, "channels": 9, "stride": 1}]}, "ir_k3_s2 with 8 → 9 channels"),
        ({"stages": [{"layers": 0, "channels": 8, "stride": 1}]}, "stages[1].layers is 0"),
        ({"head": {"channels": "many"}}, "head.channels is 'many'"),
        ({"tail": 1}, "unknown key 'tail'"),
    ],
)
def test_a_wrong_space_is_refused_when_it_is_read(change, message):
    definition = {"name": "tiny"} | yaml.safe_load((SPACES / "tiny.yaml").read_text())
    with pytest.raises(InputError) as error:
        make_space(definition | change)
    assert message in str(error.value)


def test_architectures_are_checked_against_the_space(tiny):
    with pytest.raises(InputError, match="has 3 operators, this one has 1"):
        tiny.path(["skip"])
    with pytest.raises(InputError, match="layer 2 of space tiny has no operator 'ir_k5_e6'"):
        tiny.path(["skip", "ir_k5_e6", "skip"])
