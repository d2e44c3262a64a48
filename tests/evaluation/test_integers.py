"""An exported network in int8: a file that any runtime reads, and accuracies that are those of the files."""

import re
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fbnet.architecture import find
from fbnet.architecture.export import export
from fbnet.architecture.model import Model
from fbnet.evaluation.integers import INT8, write_int8
from fbnet.network import Network

pytestmark = pytest.mark.xdist_group("export")  # one worker exports


@pytest.fixture
def dataset():
    """Images of noise that is the brighter, the higher its class."""
    rng = np.random.default_rng(0)

    def images(count):
        labels = rng.integers(0, 10, count)
        noise = rng.integers(0, 60, (count, 16, 16, 3)) + 20 * labels[:, None, None, None]
        return noise.astype(np.uint8), labels

    (train, train_labels), (test, test_labels) = images(96), images(200)
    return SimpleNamespace(
        **{"train_images": train, "train_labels": train_labels, "test_images": test, "test_labels": test_labels},
        **{"mean": (0.4, 0.5, 0.6), "std": (0.3, 0.25, 0.2), "resolution": 16},
    )


def test_in_int8_a_network_is_smaller_nearly_the_same_and_its_accuracy_is_told(dataset, tmp_path):
    architecture = find("k3_e1 | skip k5_e3", "tiny")
    torch.manual_seed(0)
    network = Network(architecture.space, architecture.ops, 10).eval()
    out = tmp_path / "net.onnx"
    said = {}

    def more(path):
        said["int8"] = write_int8(path, out.with_suffix(INT8), dataset)
        return said

    export(Model(architecture, network, {"weights": "random"}, "none"), {}, out, more)
    file = tmp_path / "net.int8.onnx"
    assert f"| int8 | {said['int8']} |" in (tmp_path / "net.md").read_text(encoding="utf-8")
    convolutions = [node for node in onnx.load(file).graph.node if node.op_type == "Conv"]
    weights = {tensor.name: tensor for tensor in onnx.load(file).graph.initializer}
    made = {output: node for node in onnx.load(file).graph.node for output in node.output}
    for node in convolutions:
        assert weights[made[node.input[1]].input[0]].data_type == onnx.TensorProto.INT8
    images = ((dataset.test_images / 255 - dataset.mean) / dataset.std).transpose(0, 3, 1, 2).astype(np.float32)
    logits = [onnxruntime.InferenceSession(path).run(None, {"images": images})[0] for path in (file, out)]
    assert np.abs(logits[0] - logits[1]).max() < 0.2 * np.abs(logits[1]).max()
    right = [f"{(one.argmax(1) == dataset.test_labels).mean():.2%}" for one in logits]
    assert re.fullmatch(
        rf"net.int8.onnx: top-1 {right[0]} on the 200 test images, in float32 {right[1]}; calibrated on 96 training images",
        said["int8"],
    )
