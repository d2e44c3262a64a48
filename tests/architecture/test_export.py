"""Exported models: files that load without us and compute the same, timm's form, and what is refused."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch.utils.flop_counter import FlopCounterMode

from conftest import write_table
from fbnet.architecture import find
from fbnet.architecture.card import latencies
from fbnet.architecture.export import TOLERANCE, export
from fbnet.architecture.model import Model
from fbnet.architecture.timm_blocks import block_strings, model_arguments, to_timm
from fbnet.errors import InputError
from fbnet.latency import OPSET, read_table
from fbnet.latency.table import tsv
from fbnet.network import Network, cut_out, size
from fbnet.space import CANDIDATES, OPERATORS

pytestmark = pytest.mark.xdist_group("export")  # one worker exports: to start with that takes seconds


def network_of(architecture, seed=0):
    torch.manual_seed(seed)
    return Network(architecture.space, architecture.ops, architecture.classes).eval()


def alone(code, folder):
    """Run code in a Python that cannot see this project."""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_files_of_a_search_load_elsewhere_and_compute_its_network(finished_workflow, tmp_path):
    results = finished_workflow.folder / "results"
    for path in (results / "models").iterdir():
        shutil.copy(path, tmp_path)
        assert path.stat().st_mode & 0o777 == 0o644
    weights = load_file(tmp_path / "first.safetensors")
    architecture = find(str(results / "modeldef/first.json"))
    network = Network(architecture.space, architecture.ops, architecture.classes).eval()
    network.load_state_dict(weights)
    supernet = torch.load(results / "search/first/supernet.pt", weights_only=True)["weights"]
    assert torch.equal(network.stem[0].weight, supernet["stem.0.weight"])
    assert not torch.equal(network.stem[1].running_mean, supernet["stem.1.running_mean"])  # recalibrated

    images = torch.randn(5, 3, 16, 16)
    np.save(tmp_path / "images.npy", images.numpy())
    alone(
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('first.onnx')\n"
        "images = numpy.load('images.npy')\n"
        "numpy.save('onnx.npy', session.run(None, {'images': images})[0])\n"
        "assert session.run(None, {'images': images[:1]})[0].shape == (1, 10)\n"
        "assert not {'torch', 'fbnet'} & set(sys.modules)\n",
        tmp_path,
    )
    alone(
        "import sys, numpy, torch\n"
        "model = torch.export.load('first.pt2').module()\n"
        "numpy.save('torch.npy', model(torch.from_numpy(numpy.load('images.npy'))).detach().numpy())\n"
        "assert 'fbnet' not in sys.modules\n",
        tmp_path,
    )
    with torch.no_grad():
        expected = network(images).numpy()
    for name in ("onnx", "torch"):
        assert np.abs(np.load(tmp_path / f"{name}.npy") - expected).max() <= TOLERANCE * np.abs(expected).max()

    model = onnx.load(tmp_path / "first.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    notes = {item.key: item.value for item in model.metadata_props}
    assert notes["architecture"] == str(architecture)
    assert json.loads(notes["classes"]) == [str(digit) for digit in range(10)]
    assert "inherited from the supernet" in notes["weights"]
    with safe_open(tmp_path / "first.safetensors", "pt") as file:
        assert json.loads(file.metadata()["space"]) == architecture.space.definition

    card = (tmp_path / "first.md").read_text(encoding="utf-8")
    macs, params = size(architecture.cells)
    found = [
        "predicted latency",
        "µs on ",
        "| 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 |",
        "batch norm statistics recalibrated",
        "ONNX opset 20",
    ]
    found += [
        "upright, RGB in 0–1, resized and centre-cropped to 16×16 (bilinear), minus the mean (0.3",
        "of the training images of digits",
    ]
    for text in (f"{macs:,}", f"{params:,}", str(architecture), *found):
        assert text in card, text
    provenance = json.loads((results / "modeldef/first.json").read_text(encoding="utf-8"))["provenance"]
    one_shot = (
        f"| one-shot accuracy | top-1 {provenance['top1']:.1%} with inherited weights, on the architecture (validation) split"
    )
    assert (one_shot in card) == (list(architecture.ops) == provenance["ops"])
    assert len(card.splitlines()) < 100
    assert ("no file for timm" in card) != (tmp_path / "first.timm.safetensors").exists()


def test_a_published_network_is_exported_by_its_name_and_runs_in_timm_as_its_card_says(script, tmp_path):
    done = script("export_model", "--arch", "fbnet_cpu_sample2", "--out", tmp_path / "x.onnx")
    assert done.returncode == 0, done.stderr
    made = ["x.md", "x.onnx", "x.pt2", "x.safetensors", "x.timm.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == made
    card = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert "random: train the network before use" in card
    assert "logits differ at most by" in done.stderr
    assert "x.timm.safetensors" in done.stderr
    torch.save(images := torch.randn(3, 3, 32, 32), tmp_path / "images.pt")
    [code] = re.findall(r"```python\n(from safetensors.*?)```", card, re.DOTALL)
    before = "import torch; images = torch.load('images.pt')\n"
    alone(before + code + "torch.save(logits.detach(), 'logits.pt')\n", tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    expected = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    assert (torch.load(tmp_path / "logits.pt") - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_what_timm_cannot_express_leaves_no_file_of_an_earlier_export(tmp_path):
    for line, made in (("k3_e1 | skip k5_e3", True), ("k3_s2 | skip k5_e3", False)):
        architecture = find(line, "tiny")
        export(Model(architecture, network_of(architecture), {"weights": "random"}, "as they are"), {}, tmp_path / "x.onnx")
        assert (tmp_path / "x.timm.safetensors").exists() == made
    card = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert "There is no file for timm: timm's block strings cannot express the operator ir_k3_s2 of layer 1." in card


def test_the_workflow_knows_the_published_networks(workflow):
    assert workflow.planned("results/zoo/fbnet_c.onnx") == {"export_published"}
    assert workflow("--dry-run", "results/zoo/fbnet_d.onnx").returncode != 0


@pytest.mark.parametrize("reader", ["load_file", "onnxruntime"])
def test_a_file_that_computes_something_else_is_an_error(monkeypatch, tmp_path, reader):
    architecture = find("k3_e1 | skip k5_e3", "tiny")
    one, other = (Model(architecture, network_of(architecture, seed), {"weights": "random"}, "as they are") for seed in (0, 1))
    assert max(export(one, {}, tmp_path / "x.onnx").values()) <= TOLERANCE
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if reader == "load_file":
        monkeypatch.setattr("fbnet.architecture.export.load_file", lambda _: other.network.state_dict())
        name = "safetensors"
    else:
        session = onnxruntime.InferenceSession
        export(other, {}, tmp_path / "other/x.onnx")
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda _, **options: session(tmp_path / "other/x.onnx", **options))
        name = "ONNX"
    with pytest.raises(ArithmeticError, match=rf"{name}: logits differ by .* more than 1e-04"):
        export(one, {}, tmp_path / "x.onnx")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_weights_of_another_space_and_missing_data_are_refused(finished_workflow, script, tmp_path):
    results = finished_workflow.folder / "results"
    supernet = ["--supernet", results / "search/first/supernet.pt"]
    out = ["--out", tmp_path / "x.onnx"]
    for arguments, message in (
        (["--arch", "fbnet_c", "--space", "fbnet_32", "--data", results / "data/digits"], "is of space tiny with 10 classes"),
        (["--arch", "skip skip skip", "--space", "tiny", "--classes", 3, "--data", results / "data/digits"], "not of this one"),
        (["--arch", "skip skip skip", "--space", "tiny"], "--data is not set, but --supernet and --trained need it"),
    ):
        done = script("export_model", *arguments, *supernet, *out)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_batch_norms_are_recalibrated_on_the_images_given(tiny, tiny_table):
    from fbnet.search import StochasticSupernet

    supernet = StochasticSupernet(tiny, 10, tiny_table).state_dict()
    batches = [(torch.randn(16, 3, 16, 16), None) for _ in range(4)]
    network = cut_out(supernet, tiny, ["skip"] * 3, 10, batches)
    assert not network.training
    with torch.no_grad():
        outputs = torch.stack([network.stem[0](images) for images, _ in batches])
    assert torch.allclose(network.stem[1].running_mean, outputs.mean((0, 1, 3, 4)), atol=1e-5)


def test_the_card_tells_latencies_and_what_was_measured_beside_the_same_table(tiny, tmp_path):
    architecture = find("k3_e1 | skip k5_e3", "tiny")
    tables = [write_table(tmp_path / f"{us}.tsv", tiny, latency_us=lambda cell, us=us: us * cell.c_out) for us in (1.0, 2.0)]
    predicted = [read_table(path, tiny, 10).predict(architecture.ops) for path in tables]
    measurement = tmp_path / "measurement.tsv"
    written = {"name": "a", "ops": " ".join(architecture.ops), "predicted_us": predicted[0], "measured_us": 1234.56}
    other = written | {"ops": "skip skip skip", "measured_us": 1.0}
    measurement.write_text(tsv([other, written], list(written), {"machine": "mine", "threads": "1"}), encoding="utf-8")
    missing = tmp_path / "missing.tsv"
    rows = latencies(architecture, tables, [missing, measurement])
    assert rows["measured latency"] == "1,235 µs on mine, threads=1"
    other = written | {"other_us": 1987.6}
    for allocator, how in (("keep", "without"), ("plain", "with")):
        measurement.write_text(tsv([other], list(other), {"machine": "mine", "allocator": allocator}), encoding="utf-8")
        told = latencies(architecture, tables, [measurement])["measured latency"]
        assert told.startswith("1,235 µs on mine")
        assert told.endswith(f", 1,988 µs there {how} the line that keeps memory")
    assert all(f"{us:,.0f} µs on a device" in rows["predicted latency"] for us in predicted)
    assert latencies(architecture, tables[1:], [measurement]).keys() == {"predicted latency"}  # measured beside another table
    assert latencies(architecture, [], []) == {}
    measurement.write_text("nothing\nof the kind\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"measurement.tsv is no measurement"):
        latencies(architecture, tables, [measurement])


# timm


def in_timm(architecture, network):
    """timm's network for an architecture, with the weights of ours."""
    model = EfficientNet(decode_arch_def(block_strings(architecture)), **model_arguments(architecture))
    model.conv_stem.stride = (architecture.space.stem.stride,) * 2
    model.load_state_dict(to_timm(architecture, network.state_dict()), strict=True)
    return model.eval()


def test_fbnet_c_is_timm_s_fbnetc_100():
    architecture = find("fbnet_c")
    theirs = timm.create_model("fbnetc_100", pretrained=False).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.zeros(1, 3, 224, 224))
    assert size(architecture.cells) == (counter.get_total_flops() // 2, sum(p.numel() for p in theirs.parameters()))
    ours = network_of(architecture)
    theirs.load_state_dict(to_timm(architecture, ours.state_dict()), strict=True)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = ours(images)
        assert (theirs(images) - expected).abs().max() <= 1e-4 * expected.abs().max()


FOUND = (
    "k5_e6 | skip k3_e3 k3_e3 skip | k3_e6 k5_e6 k5_e6 skip | skip k3_e6 skip skip | "
    "k5_e6 k7_e6 skip k3 | k5_e6 skip skip skip | skip"
)


@pytest.mark.parametrize("base", ["fbnet_cifar", "fbnet_32"])
def test_a_found_network_is_the_same_in_timm(base):
    space = json.dumps({"base": base, "candidates": "all", "expansion": 4})
    architecture = find(FOUND, space)
    assert block_strings(architecture)[:3] == [
        ["ir_r1_k5_s1_e6_c16"],
        [f"cn_r1_k1_s{1 if base == 'fbnet_cifar' else 2}_c24", "ir_r2_k3_s1_e3_c24"],
        ["ir_r1_k3_s2_e6_c32", "ir_r2_k5_s1_e6_c32"],
    ]
    network = network_of(architecture)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
        assert (in_timm(architecture, network)(images) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("op", CANDIDATES)
def test_an_operator_has_a_block_string_or_is_named(op):
    architecture = find(f"skip | {op} skip", json.dumps({"base": "tiny", "candidates": "all", "expansion": 2}))
    operator = OPERATORS[op]
    plain = operator.kind == "irf" and operator.groups == 1 and operator.depthwise == 1 and not operator.se
    if plain or op == "skip":
        network = network_of(architecture)
        images = torch.randn(2, 3, 16, 16)
        with torch.no_grad():
            assert torch.allclose(in_timm(architecture, network)(images), network(images), rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(InputError, match=f"cannot express the operator {op} of layer 2"):
            block_strings(architecture)


def test_what_else_timm_cannot_express_is_named():
    for change, message in (
        ({"norm": "gn4"}, "norm gn4"),
        ({"head": {"channels": 36}}, "multiples of 8, but head has 36"),
        ({"stem": {"channels": 12, "stride": 1}}, "multiples of 8, but stem has 12"),
    ):
        with pytest.raises(InputError, match=message):
            block_strings(find("k3_e1 | k3_e1 skip", json.dumps({"base": "tiny"} | change)))
    stages = [{"layers": 2, "channels": 8, "stride": 1}]
    with pytest.raises(InputError, match="every layer is an identity"):
        block_strings(find("skip skip", json.dumps({"base": "tiny", "stages": stages})))
