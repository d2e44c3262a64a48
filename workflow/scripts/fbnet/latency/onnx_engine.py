"""Networks as onnxruntime runs them on the CPU, put together from cells that are exported once."""

import io
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from fbnet.latency import onnx_session
from fbnet.latency.int8 import quantise
from fbnet.latency.onnx_session import Session, random_images
from fbnet.latency.own_process import OwnProcesses
from fbnet.latency.target import OPSET, Target
from fbnet.network import build
from fbnet.space import Cell


class OnnxEngine:
    """Runs chains of cells in onnxruntime with all graph optimisations.

    They fuse nodes across cells, and a network's inner cells need no change of layout at their borders, so that no cell can be
    timed inside a network; cells are timed alone.
    """

    def __init__(self, cells: Iterable[Cell], target: Target):
        self.target = target
        distinct = {cell.build_key: cell for cell in cells if not cell.is_identity}
        self._split(_export(_Side(distinct.values()), distinct.values(), target.batch), list(distinct))

    def _split(self, model: onnx.ModelProto, keys: list[tuple]) -> None:
        """Find the nodes of each cell: what its output needs, down to its input."""
        self.opsets, self.ir_version = model.opset_import, model.ir_version
        graph = model.graph
        producer = {name: i for i, node in enumerate(graph.node) for name in node.output}
        weights = {tensor.name: tensor for tensor in graph.initializer}
        self.parts = {}
        for key, source, sink in zip(keys, graph.input, graph.output, strict=True):
            wanted, found, used = [sink.name], set(), set()
            while wanted:
                name = wanted.pop()
                if name in weights:
                    used.add(name)
                elif name in producer and producer[name] not in found:
                    found.add(producer[name])
                    wanted += graph.node[producer[name]].input
            nodes = [graph.node[i] for i in sorted(found)]
            self.parts[key] = (source.name, sink.name, nodes, [weights[name] for name in sorted(used)])

    def network(self, path: Sequence[Cell]) -> Session:
        """A session of these cells in a row."""
        return Session(self.content(path), self.target)

    def content(self, path: Sequence[Cell]) -> bytes:
        """The ONNX file of these cells in a row, in the target's data type; no latency depends on what it is calibrated on."""
        model = self.model(path).SerializeToString()
        if self.target.dtype != "int8":
            return model
        with tempfile.TemporaryDirectory(prefix="fbnet-") as folder:
            source, out = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(model)
            quantise(source, out, [random_images(shape_of(path, self.target))])
            return out.read_bytes()

    def model(self, path: Sequence[Cell]) -> onnx.ModelProto:
        """The ONNX model of these cells in a row; each has weights of its own."""
        nodes, weights, current = [], [], "images"
        for place, cell in enumerate(path):
            if cell.is_identity:
                continue
            source, sink, part_nodes, part_weights = self.parts[cell.build_key]
            names = {source: current, "": ""}
            for node in part_nodes:
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                copy.name = f"{place}/{node.name}"
                copy.input[:] = [names.get(name, f"{place}/{name}") for name in node.input]
                copy.output[:] = [names.get(name, f"{place}/{name}") for name in node.output]
                nodes.append(copy)
            for tensor in part_weights:
                copy = onnx.TensorProto()
                copy.CopyFrom(tensor)
                copy.name = f"{place}/{tensor.name}"
                weights.append(copy)
            current = f"{place}/{sink}"
        kind = onnx.TensorProto.FLOAT
        images = onnx.helper.make_tensor_value_info("images", kind, shape_of(path, self.target))
        output = onnx.helper.make_tensor_value_info(current, kind, None)
        graph = onnx.helper.make_graph(nodes, "network", [images], [output], weights)
        return onnx.helper.make_model(graph, opset_imports=self.opsets, ir_version=self.ir_version)


class OnnxFiles:
    """Writes chains of cells as ONNX files, to a folder, or to one that goes with this."""

    def __init__(self, cells: Iterable[Cell], target: Target, folder: Path | None = None):
        self._engine = OnnxEngine(cells, target)
        self._own = None if folder else tempfile.TemporaryDirectory(prefix="fbnet-")
        self._folder = folder or Path(self._own.name)
        self._count = 0

    def file(self, path: Sequence[Cell]) -> Path:
        """The file of these cells in a row."""
        self._count += 1
        file = self._folder / f"{self._count}.onnx"
        file.write_bytes(self._engine.content(path))
        return file


class OnnxProcesses:
    """Runs chains of cells in onnxruntime, each from its file and in a process of its own."""

    def __init__(self, cells: Iterable[Cell], target: Target):
        self._files, self._processes = OnnxFiles(cells, target), OwnProcesses(partial(onnx_session.alone, target))

    def network(self, path: Sequence[Cell]):
        """The process of these cells in a row."""
        return self._processes.network(self._files.file(path))


def shape_of(path: Sequence[Cell], target: Target) -> tuple[int, ...]:
    """[N, C, H, W] of what the first of these cells gets."""
    return target.batch, path[0].c_in, path[0].height, path[0].width


class _Side(nn.Module):
    """Cells side by side, each with an input and an output of its own: one export for all takes a second a dozen cells."""

    def __init__(self, cells: Iterable[Cell]):
        super().__init__()
        self.cells = nn.ModuleList(map(build, cells))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(cell(x) for cell, x in zip(self.cells, inputs, strict=True))


def _export(module: nn.Module, cells: Iterable[Cell], batch: int) -> onnx.ModelProto:
    inputs = tuple(torch.randn(batch, cell.c_in, cell.height, cell.width) for cell in cells)
    with torch.no_grad():
        exported = torch.export.export(module.eval(), inputs)
        program = torch.onnx.export(exported, dynamo=True, opset_version=OPSET, verbose=False)
    file = io.BytesIO()
    program.save(file)
    return onnx.load_model_from_string(file.getvalue())
