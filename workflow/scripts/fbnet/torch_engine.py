"""Networks as PyTorch runs them, with the time of each cell inside the network."""

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import nn

from fbnet.blocks import build
from fbnet.errors import InputError
from fbnet.space import Cell
from fbnet.target import Target

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class TorchEngine:
    """Runs chains of cells in PyTorch, in evaluation mode; every (layer, operator) has weights of its own, as in a network."""

    def __init__(self, cells: Iterable[Cell], target: Target):
        self.target = target
        self.clock = _CudaClock() if target.device == "cuda" else _CpuClock()
        with torch.inference_mode():
            self.modules = {(cell.layer, cell.op): self._module(cell) for cell in cells}

    def _module(self, cell: Cell) -> nn.Module:
        options = {"dtype": DTYPES[self.target.dtype], "memory_format": FORMATS[self.target.memory_format]}
        block = build(cell).eval().to(self.target.device, **options)
        if self.target.mode != "compile" or isinstance(block, nn.Identity):
            return block
        # A traced block has a code object of its own: else all blocks of a class share one cache of compiled code.
        return torch.compile(torch.fx.symbolic_trace(block), fullgraph=True)

    def network(self, path: Sequence[Cell]) -> "_Chain":
        """The chain of these cells, to be run and timed."""
        first, target = path[0], self.target
        shape = (target.batch, first.c_in, first.height, first.width)
        images = torch.randn(shape, device=target.device, dtype=DTYPES[target.dtype])
        images = images.contiguous(memory_format=FORMATS[target.memory_format])
        return _Chain([self.modules[cell.layer, cell.op] for cell in path], images, self.clock)


class _Chain:
    def __init__(self, modules: list[nn.Module], images: torch.Tensor, clock):
        self.modules, self.images, self.clock = modules, images, clock

    @torch.inference_mode()
    def time(self) -> float:
        """µs of one inference."""
        x = self.images
        start = self.clock.mark()
        for module in self.modules:
            x = module(x)
        return self.clock.between([start, self.clock.mark()])[0]

    @torch.inference_mode()
    def laps(self) -> list[float]:
        """µs of each cell in one inference."""
        x = self.images
        marks = [self.clock.mark()]
        for module in self.modules:
            x = module(x)
            marks.append(self.clock.mark())
        return self.clock.between(marks)


class _CpuClock:
    mark = staticmethod(time.perf_counter_ns)

    def between(self, marks: list[int]) -> list[float]:
        return [(after - before) / 1000 for before, after in pairwise(marks)]


class _CudaClock:
    """Marks in the stream of the device: no synchronisation between cells, as in an inference."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, marks: list[torch.cuda.Event]) -> list[float]:
        marks[-1].synchronize()
        return [before.elapsed_time(after) * 1000 for before, after in pairwise(marks)]


class GraphEngine:
    """Runs chains of cells as CUDA graphs; a graph has no marks inside, so that cells are captured and timed alone."""

    def __init__(self, cells: Iterable[Cell], target: Target):
        self.eager = TorchEngine(cells, target)

    @torch.inference_mode()
    def network(self, path: Sequence[Cell]) -> "_Graph":
        """The chain of these cells, captured."""
        chain = self.eager.network(path)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                chain.time()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x = chain.images
            for module in chain.modules:
                x = module(x)
        return _Graph(graph, chain, x)


class _Graph:
    def __init__(self, graph: torch.cuda.CUDAGraph, chain: _Chain, output: torch.Tensor):
        self.graph, self.clock = graph, chain.clock
        self.kept = chain, output  # the graph reads and writes their memory

    def time(self) -> float:
        """µs of one replay."""
        start = self.clock.mark()
        self.graph.replay()
        return self.clock.between([start, self.clock.mark()])[0]


def check(target: Target, cores: int) -> None:
    """Raise InputError for a device, thread count or combination that is not there."""
    if target.device == "cuda" and not torch.cuda.is_available():
        raise InputError("latency: device is 'cuda', but PyTorch finds no GPU here: choose device 'cpu' or another machine")
    compiler = os.environ.get("CXX", "g++")
    if target.mode == "compile" and target.device == "cpu" and not shutil.which(compiler):
        raise InputError(
            f"latency: mode is 'compile', but there is no C++ compiler {compiler!r} here: install it, or choose mode 'eager'"
        )
    if target.threads > cores:
        raise InputError(f"latency: threads is {target.threads}, but this machine has {cores} cores: choose at most {cores}")
