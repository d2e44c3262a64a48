"""Networks as PyTorch runs them, with the time of each cell inside the network."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from fbnet import limits
from fbnet.device import usable_gpus
from fbnet.errors import InputError
from fbnet.latency.own_process import OwnProcesses, Remote
from fbnet.latency.target import Target
from fbnet.network import build
from fbnet.space import Cell

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Moment:
    """A mark in the host's time, with what torch.cuda.Event has."""

    def record(self) -> None:
        self.ns = time.perf_counter_ns()

    def synchronize(self) -> None:
        """The host need not wait for itself."""

    def elapsed_time(self, later: "Moment") -> float:
        """ms from this mark to another."""
        return (later.ns - self.ns) / 1e6


class TorchEngine:
    """Runs chains of cells in PyTorch, in evaluation mode; every cell has weights of its own, as in a network.

    `clock` makes the marks between cells, like torch.cuda.Event; if it is not given, the target's device chooses it. An identity
    is nothing to run, and has no mark.
    """

    def __init__(self, cells: Iterable[Cell], target: Target, clock: Callable | None = None):
        self.target = target
        self.clock = clock or (partial(torch.cuda.Event, enable_timing=True) if target.device == "cuda" else Moment)
        with torch.inference_mode():
            self.modules = {cell: self._module(cell) for cell in cells if not cell.is_identity}

    def _module(self, cell: Cell) -> nn.Module:
        options = {"dtype": DTYPES[self.target.dtype], "memory_format": FORMATS[self.target.memory_format]}
        block = build(cell).eval().to(self.target.device, **options)
        if self.target.mode != "compile":
            return block
        # A traced block has a code object of its own: else all blocks of a class share one cache of compiled code.
        return torch.compile(torch.fx.symbolic_trace(block), fullgraph=True)

    def network(self, path: Sequence[Cell]) -> "_Chain":
        """The chain of these cells, to be run and timed."""
        first, target = path[0], self.target
        shape = (target.batch, first.c_in, first.height, first.width)
        images = torch.randn(shape, device=target.device, dtype=DTYPES[target.dtype])
        images = images.contiguous(memory_format=FORMATS[target.memory_format])
        return _Chain([self.modules[cell] for cell in path if not cell.is_identity], images, self.clock)


class _Chain:
    def __init__(self, modules: list[nn.Module], images: torch.Tensor, clock: Callable):
        self.modules, self.images = modules, images
        self.marks = [clock() for _ in range(len(modules) + 1)]
        for mark in self.marks:
            mark.record()  # the first time makes an event, which takes longer

    @torch.inference_mode()
    def time(self) -> float:
        """µs of one inference."""
        x = self.images
        self.marks[0].record()
        for module in self.modules:
            x = module(x)
        self.marks[-1].record()
        return between([self.marks[0], self.marks[-1]])[0]

    @torch.inference_mode()
    def laps(self) -> list[float]:
        """µs of each cell in one inference, identities left out; nothing waits for the device between cells."""
        x = self.images
        self.marks[0].record()
        for module, mark in zip(self.modules, self.marks[1:], strict=True):
            x = module(x)
            mark.record()
        return between(self.marks)


class TorchProcesses:
    """Runs chains of cells in PyTorch on the CPU, each in a process that runs nothing else."""

    def __init__(self, target: Target):
        self.target, self._processes = target, OwnProcesses(_in_process)

    def network(self, path: Sequence[Cell], allocator: str | None = None) -> Remote:
        """The process of these cells in a row, with the target's `allocator` or another."""
        return self._processes.network((replace(self.target, allocator=allocator or self.target.allocator), path))


def _in_process() -> Callable[[tuple[Target, Sequence[Cell]]], _Chain]:
    def network(what: tuple[Target, Sequence[Cell]]) -> _Chain:
        target, path = what
        if target.allocator == "keep":
            # As the card of an exported network tells users to. glibc raises two thresholds to the size of the largest block of
            # up to 32 MiB that was ever freed, and hands back to the system only what is above them.
            torch.empty(33_000_000, dtype=torch.uint8)
        torch.set_num_threads(target.threads)
        return TorchEngine(path, target).network(path)

    return network


def between(marks: Sequence) -> list[float]:
    """µs from each mark to the next, once the device has come to the last."""
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
        self.graph = graph
        self.marks = chain.marks[0], chain.marks[-1]
        self.kept = chain, output  # the graph reads and writes their memory

    def time(self) -> float:
        """µs of one replay."""
        start, end = self.marks
        start.record()
        self.graph.replay()
        end.record()
        return between(self.marks)[0]


def check(target: Target) -> None:
    """Raise InputError for a device, thread count or combination that is not there."""
    if target.device == "cuda" and not usable_gpus():
        raise InputError("latency: device is 'cuda', but PyTorch finds no GPU here: choose device 'cpu' or another machine")
    compiler = os.environ.get("CXX", "g++")
    if target.mode == "compile" and target.device == "cpu" and not shutil.which(compiler):
        raise InputError(
            f"latency: mode is 'compile', but there is no C++ compiler {compiler!r} here: install it, or choose mode 'eager'"
        )
    if target.threads > (cpus := limits.cpus()) and target.engine != "command":  # whose device may be another
        raise InputError(f"latency: threads is {target.threads}, but at most {cpus} CPUs may be used here: choose no more")
