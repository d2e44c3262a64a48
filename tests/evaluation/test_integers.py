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
from fbnet.network import Network, int8_bytes, peak_values

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


def live_values(path):
    """The most values that are in memory at once while a float32 file is computed for one image, node by node.

    An activation is computed in place, and a view is none of its own.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    shapes = {one.name: one.type.tensor_type.shape.dim for one in [*graph.input, *graph.value_info, *graph.output]}
    owner = {graph.input[0].name: graph.input[0].name}  # of each value whose memory it is in
    for node in graph.node:
        in_place = node.op_type in ("Relu", "Reshape", "Flatten", "Identity", "Add")
        for output in node.output:
            owner[output] = owner[node.input[0]] if in_place and node.input[0] in owner else output
    last = {owner[name]: number for number, node in enumerate(graph.node) for name in node.input if name in owner}
    first = {owner[node.output[0]]: number for number, node in reversed([*enumerate(graph.node)])}

    def values(name):
        return np.prod([dim.dim_value or 1 for dim in shapes[name]])

    alive = [
        sum(values(name) for name, end in last.items() if first.get(name, 0) <= number <= end and name not in weights)
        for number, _ in enumerate(graph.node)
    ]
    return max(alive)


def test_in_int8_a_network_is_smaller_nearly_the_same_and_its_accuracy_is_told(dataset, tmp_path):
    architecture = find("k3_e1 | skip k5_e3", "tiny")
    torch.manual_seed(0)
    network = Network(architecture.space, architecture.ops, 10).eval()
    for name, parameter in network.named_parameters():  # a bias of nothing would be left out of the file
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)
    out = tmp_path / "net.onnx"
    said = {}

    def more(path):
        said["int8"] = write_int8(path, out.with_suffix(INT8), dataset)
        return said

    export(Model(architecture, network, {"weights": "random"}, "none"), {}, out, more)
    file = tmp_path / "net.int8.onnx"
    assert file.stat().st_size == pytest.approx(int8_bytes(architecture.cells), rel=0.1)  # as budgets count it
    assert live_values(out) == max(map(peak_values, architecture.cells))
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
