"""Architectures: their string, the zoo with its golden counts, and how people find and describe them."""

import json
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, mutated, read_or_refused, write_table
from fbnet.architecture import find
from fbnet.architecture.card import describe, diagram
from fbnet.errors import InputError
from fbnet.latency import read_table
from fbnet.network import Network, size
from fbnet.space import CANDIDATES, compact, parse, published, read_architectures, read_space

# MACs and weights (of convolutions and the fully connected layer) at the resolution and head of each
GOLDEN = {
    "fbnet_a": (249_921_848, 4_286_480),
    "fbnet_b_2019": (295_561_032, 4_777_296),
    "fbnet_c_2019": (382_984_480, 5_520_784),
    "fbnet_c": (384_960_160, 5_526_832),
    "fbnet_96_035_1": (12_944_208, 1_833_968),
}
ROUNDED = {"fbnet_b1": (286.80, 4.13), "fbnet_c1": (374.23, 4.87)}  # millions
TINY_SPACE = read_space("tiny")
ALL_SPACE = read_space("fbnet_all")


def network_of(architecture):
    with torch.device("meta"):
        return Network(architecture.space, architecture.ops, architecture.classes)


@pytest.mark.parametrize("name", [*GOLDEN, *ROUNDED])
def test_published_sizes_are_reproduced(name):
    architecture = find(name)
    macs, params = size(architecture.cells)
    network = network_of(architecture)
    weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    if name in GOLDEN:
        assert (macs, weights) == GOLDEN[name]
    else:
        assert (round(macs / 1e6, 2), round(weights / 1e6, 2)) == ROUNDED[name]
    assert params == sum(p.numel() for p in network.parameters())


def test_fbnet_c_has_its_total_of_parameters():
    assert size(find("fbnet_c").cells) == (384_960_160, 5_572_200)


def test_the_zoo_is_whole():
    names = {"fbnet_a", "fbnet_b", "fbnet_b1", "fbnet_b_2019", "fbnet_c", "fbnet_c1", "fbnet_c_2019", "fbnet_96_035_1"}
    names |= {"fbnet_samsung_s8", "fbnet_iphonex", "fbnet_cpu_sample1", "fbnet_cpu_sample2", "mobilenet_v2_like"}
    assert set(published()) == names
    for name, entry in published().items():
        assert str(find(name)) == entry["ops"]


@pytest.mark.parametrize("name", published())
def test_every_published_network_trains_a_step(name):
    torch.manual_seed(0)
    # In its own layers and channels, on small images.
    architecture = find(name)
    space = read_space(architecture.space.definition | {"resolution": 32})
    network = Network(space, architecture.ops, 10).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    before = [p.clone() for p in network.parameters()]
    loss = torch.nn.functional.cross_entropy(network(torch.randn(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    # Weights alone: a bias before a batch norm has next to no gradient.
    assert all(not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True) if p.dim() > 1)


@settings(deadline=None)
@given(st.data())
def test_the_string_of_an_architecture_is_read_back(data):
    ops = tuple(data.draw(st.sampled_from(CANDIDATES)) for _ in range(22))
    line = compact(ops, ALL_SPACE)
    assert parse(line, ALL_SPACE) == ops
    assert line.count("|") == 6
    assert parse(" ".join(ops), ALL_SPACE) == ops  # as the tables have it
    assert compact(parse(line, ALL_SPACE), ALL_SPACE) == line


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"|k35_ei s\n'x", "skip ", "k3_e1 ", "ir_k3_s2 ", "k5_e6 "]), max_size=12).map("".join))
def test_any_text_is_an_architecture_or_one_sentence(text):
    message = ""
    try:
        ops = parse(text, TINY_SPACE)
    except InputError as error:
        message = str(error)
    else:
        assert len(TINY_SPACE.path(ops)) == 3
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skip | skip skippy", "unknown operator 'skippy' for layer 3 (did you mean skip?)"),
        ("skip | skip é", "unknown operator 'é' for layer 3; known are skip, "),
        ("skip | skip conv_k3", "unknown operator 'conv_k3' for layer 3"),
        ("skip | skip", "stage 2 of space tiny has 2 layers, but the architecture has 1 operators there: 'skip'"),
        ("skip | skip skip | skip", "space tiny has 2 stages, but the architecture has 3"),
        ("skip skip", "has 3 operators, this one has 2"),
        ("", "has 3 operators, this one has 0"),
        ("skip | k5_e6 skip", "layer 2 of space tiny has no operator 'ir_k5_e6'; it has ir_k3_e1"),
    ],
)
def test_a_string_that_does_not_fit_is_refused_with_the_place(text, message):
    with pytest.raises(InputError) as error:
        parse(text, TINY_SPACE)
    assert message in str(error.value)


def test_the_description_adds_up(tmp_path):
    table = read_table(write_table(tmp_path / "t.tsv", TINY_SPACE, latency_us=lambda cell: 1.5 * cell.c_out), TINY_SPACE, 10)
    architecture = find("k3_s2 | skip k5_e3", "tiny", name="small")
    found = describe(architecture, table)
    assert found["ops"] == ["ir_k3_s2", "skip", "ir_k5_e3"]
    assert [row["layer"] for row in found["layers"]] == ["stem", "1", "2", "3", "head", "head"]
    for key in ("macs", "params", "latency_us"):
        assert found[key] == sum(row[key] for row in found["layers"])
    assert found["latency_us"] == table.predict(architecture.ops)
    assert found["timm_blocks"] is None
    assert describe(find("k3_e1 | skip k5_e3", "tiny"))["timm_blocks"] == [
        ["ir_r1_k3_s1_e1_c8"],
        ["cn_r1_k1_s2_c16", "ir_r1_k5_s1_e3_c16"],
    ]
    assert diagram(architecture).splitlines() == [
        "images   3×16×16",
        "stem     8×8×8    █ conv_k3 ↓2",
        "stage 1  8×8×8    █ k3_s2",
        "stage 2  16×4×4   █ skip ↓2  ███ k5_e3",
        "head     32×4×4   █ conv_k1  average pool",
        "logits   10       fully connected",
    ]


def test_the_script_describes_published_networks_in_any_space(script):
    by_name = script("describe_architecture", "--arch", "fbnet_c", "--json")
    assert by_name.returncode == 0, by_name.stderr
    found = json.loads(by_name.stdout)
    assert (found["macs"], found["params"], found["latency_us"]) == (384_960_160, 5_572_200, None)
    assert (found["resolution"], found["classes"], found["space"]) == (224, 1000, "fbnet_224")

    text = script("describe_architecture", "--arch", "fbnet_c", "--space", "fbnet_cifar", "--classes", 100)
    assert "fbnet_c: space fbnet_cifar, 32×32 images, 100 classes" in text.stdout
    assert text.stdout.splitlines()[-1].startswith("total")

    refused = script("describe_architecture", "--arch", "fbnet_d")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def test_architectures_are_found_in_the_files_of_the_workflow(script, finished_workflow):
    results = finished_workflow.folder / "results"
    document = json.loads((results / "modeldef/first.json").read_text(encoding="utf-8"))
    files = {
        results / "modeldef/first.json": None,
        results / "modeldef/first.py": "tiny",
        results / "architectures/first.tsv": "tiny",
    }
    for path, space in files.items():
        first = next(iter(document["architectures"]))
        assert find(str(path), space).name == first
        for name, expected in document["architectures"].items():
            architecture = find(str(path), space, name=name)
            table = read_table(results / "latency/cpu.tsv", architecture.space, architecture.classes)
            found = describe(architecture, table)
            assert (found["name"], found["classes"], " ".join(found["ops"])) == (name, 10, expected["ops"])
            assert (found["macs"], found["params"]) == (expected["macs"], expected["params"])
            assert found["latency_us"] == pytest.approx(expected["latency_us"], abs=1e-3)
    options = ["--table", results / "latency/cpu.tsv", "--name", first]
    done = script("describe_architecture", "--arch", results / "modeldef/first.json", *options)
    assert done.returncode == 0, done.stderr
    assert f"{document['architectures'][first]['latency_us']:,.1f}" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "fbnet_d"}, "'fbnet_d' is no published architecture (did you mean fbnet_"),
        ({"arch": "skip | skip skip"}, "a string of operators does not say which space it is of: name one with --space"),
        ({"arch": "x.py", "space": "tiny"}, "x.py holds no architectures that can be read: FileNotFoundError"),
        ({"arch": "broken.json"}, "broken.json holds no architectures that can be read"),
        ({"arch": "empty.tsv", "space": "tiny"}, "empty.tsv has no architectures"),
        ({"arch": "ok.tsv", "name": "b", "space": "tiny"}, "ok.tsv has no architecture b; it has a"),
        ({"arch": "ok.tsv"}, "does not say which space"),
        ({"arch": "fbnet_c", "space": "huge"}, "space is 'huge', but must be"),
        ({"arch": "fbnet_c1", "space": "fbnet_cifar"}, "layer 8 of space fbnet_cifar has no operator 'ir_k3_sep'"),
    ],
)
def test_an_architecture_that_cannot_be_found_is_one_sentence(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text('{"architectures": 3}', encoding="utf-8")
    (tmp_path / "empty.tsv").write_text("name\tops\n", encoding="utf-8")
    (tmp_path / "ok.tsv").write_text("name\tops\na\tskip skip skip\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        find(**arguments)
    assert message in str(error.value)


@pytest.fixture(scope="module")
def architectures_file(tmp_path_factory):
    return tmp_path_factory.mktemp("architectures") / "mutated.tsv"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_architectures_are_read_or_refused_in_a_sentence(architectures_file, data):
    text = "name\tops\tlatency_us\na\tskip ir_k3_e1 skip\t1.5\nb\tskip skip skip\t1.0\n"
    architectures_file.write_bytes(data.draw(mutated(text)))
    read = partial(read_architectures, architectures_file, TINY_SPACE, ["latency_us"])
    for row in read_or_refused(architectures_file, read) or ():
        assert TINY_SPACE.path(row["ops"])
        assert "latency_us" in row


def test_the_sizes_of_published_networks_in_the_documents_are_those_that_are_built():
    text = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+)×\d+ \| ([\d.]+) \| ([\d.]+) \|", text, re.M)
    assert [name for name, *_ in rows] == list(published())
    for name, resolution, macs, params in rows:
        architecture = find(name)
        built = size(architecture.cells)
        assert (f"{built[0] / 1e6:.2f}", f"{built[1] / 1e6:.3f}") == (macs, params), name
        assert architecture.space.resolution == int(resolution)
