"""Networks in processes of their own: what they measure, what they find there, and how they end."""

import gc
import os
import platform
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

import toys
from fbnet.errors import InputError
from fbnet.latency import Target
from fbnet.latency.onnx_engine import OnnxProcesses
from fbnet.latency.own_process import OwnProcesses
from fbnet.latency.torch_engine import TorchProcesses
from fbnet.latency.visit import warm_us
from fbnet.space import read_space
from toys import Toy, broken, where


@pytest.fixture
def start(monkeypatch):
    """Start the process that others are forked from; in the end all are gone."""
    monkeypatch.setenv("PYTHONPATH", str(Path(toys.__file__).parent))
    made = []

    def start(load):
        made.append(OwnProcesses(load))
        return made[-1]

    yield start
    children = psutil.Process().children(recursive=True)
    made.clear()
    gc.collect()
    assert not psutil.wait_procs(children, 10)[1]


def test_each_network_is_timed_in_a_process_with_nothing_else(start):
    processes = start(toys.toys)
    slow, fast = processes.network(0.6), processes.network(0.01)
    for network, seconds in ((slow, 0.6), (fast, 0.01), (slow, 0.6)):
        assert seconds * 1e6 <= network.do(Toy.time) < (seconds + 0.5) * 1e6
    (one, server, modules), (other, same, _) = slow.do(where), fast.do(where)
    assert len({one, other, server, os.getpid()}) == 4
    assert same == server
    assert not modules & {"torch", "numpy", "pandas", "scipy", "onnxruntime"}


def test_what_is_wrong_in_a_process_is_raised_here_and_the_others_go_on(start):
    processes = start(toys.toys)
    fine = processes.network(0.001)
    with pytest.raises(InputError, match="time does not run backwards"):
        processes.network(-1)
    another = processes.network(0.002)
    pid, _, _ = another.do(where)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InputError, match="is measured was killed by SIGKILL: see that there is memory"):
        another.do(warm_us)
    assert fine.do(warm_us) > 0
    assert processes.network(0.001).do(warm_us) > 0
    with pytest.raises(RuntimeError, match="Unsendable: what cannot be sent"):
        fine.do(broken)
    with pytest.raises(InputError, match="is measured ended with code 1"):
        start(toys.no_library).network(0)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's memory")
def test_memory_is_as_any_program_finds_it_or_keeps_what_is_freed():
    """A network of large activations faults its pages in anew at each inference, unless the C library is told to keep them."""
    space = read_space("fbnet_224")
    path = space.network_cells(["ir_k3_e6"] * len(space.layers), 10)[:4]
    faults = {}
    engine = TorchProcesses(Target())
    for allocator in ("plain", "keep"):
        network = engine.network(path, allocator)
        own = psutil.Process().children()[-1].children()[-1]
        counted = []
        for _ in range(6):
            network.do(warm_us)
            counted.append(int(Path(f"/proc/{own.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[7]))
        faults[allocator] = np.median(np.diff(counted))
    assert faults["plain"] > 500 > 50 > faults["keep"]


def test_onnxruntime_reads_files(tiny, start):
    target = Target(engine="onnxruntime", batch=2)
    cells = tiny.network_cells(["ir_k3_e1", "ir_k5_e3", "skip"], 10)
    assert OnnxProcesses(cells, target).network(cells).do(warm_us) > 0
