"""Several processes on one search, and several searches on one machine."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import ROOT, write_table
from fbnet.data.dataset import read_dataset
from fbnet.device import take
from fbnet.latency import read_table
from fbnet.runtime import StopRequest
from fbnet.search import Search
from fbnet.settings import Settings
from fbnet.training import Ranks
from fbnet.training.ranks import PARENT
from recipes import SETTINGS, STOPS, read, train

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize("sampling", ["soft", "single_path"] if STOPS > 1 else ["single_path"])
def test_two_processes_are_one(digits, tiny, tmp_path, sampling):
    """Each has one of the batch's two draws, where one process has both; the run is stopped midway, and goes on."""
    settings = SETTINGS | {"sampling": sampling, "draws_per_batch": 2, "batch_size": 128, "epochs": 2}
    settings["weights"] = settings["weights"] | {"lr": 0.01}  # rounding grows with each step
    table, out = write_table(tmp_path / "table.tsv", tiny), tmp_path / "two"
    command = train(digits, table, out, settings | {"gpu": 2})
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and "Each epoch:" not in read(out.with_suffix(".log")):
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 75
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Derived architecture") == 1
    assert "Resuming in epoch" in done.stderr
    two = torch.load(out / "supernet.pt", weights_only=True)

    one = Search(read_dataset(digits), read_table(table, tiny, 10), Settings.of(settings), torch.device("cpu"))
    one.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    found = one.result()
    assert all(torch.allclose(ours, theirs, atol=1e-4) for ours, theirs in zip(two["theta"], found["theta"], strict=True))
    for name, value in found["weights"].items():
        assert torch.allclose(two["weights"][name], value, atol=1e-3), name
    moved = [theta for theta in found["theta"] if theta.abs().max() > 0.01]
    assert len(moved) == 3
    assert not os.path.exists(out / "checkpoint.pt")


PROGRAM = """
import argparse, atexit, os, sys
import torch
import torch.distributed as dist
from fbnet.errors import InputError, Stopped
from fbnet.training import Ranks, launch
from fbnet.runtime import StopRequest, run

def main(arguments):
    with StopRequest(), Ranks() as ranks:
        if ranks.count == 1:
            sys.exit(launch(2))
        atexit.register(lambda: print(dist.is_initialized()))
        part(ranks)

def part(ranks):
    {part}

run(argparse.ArgumentParser(), main)
"""
WAIT = "while not any(ranks.any([False])): pass"


def two(folder, part, **environment):
    """Run a program of two processes, each of which does this part."""
    program = folder / "program.py"
    program.write_text(PROGRAM.format(part=part), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")} | environment
    command = [sys.executable, program, "--log", folder / "log"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize(
    ("part", "code", "message"),
    [
        (f"if ranks.rank == 1: raise InputError('too many')\n    {WAIT}", 1, "process 2 of 2: too many"),
        (f"if ranks.rank == 0: raise OSError(28, 'No space')\n    {WAIT}", 1, "[Errno 28] No space"),
        ("ranks.any([False]); raise InputError('too many')", 1, "too many"),
        (f"if ranks.rank == 1: print(1 / 0)\n    {WAIT}", 2, "Process 2 of 2 stopped by a fault of the program\nTraceback"),
        (f"if ranks.rank == 1: os.kill(os.getpid(), 9)\n    {WAIT}", 137, "Process 2 of 2 was ended by SIGKILL."),
        ("if ranks.rank == 1: os._exit(5)", 5, "Process 2 of 2 ended with code 5."),
    ],
    ids=["sentence of the second", "sentence of the first", "the same of both", "fault", "signal", "silent"],
)
def test_what_ends_one_process_is_said_once_and_nothing_of_those_that_miss_it(tmp_path, part, code, message):
    done = two(tmp_path, part)
    assert done.returncode == code, done.stderr
    assert done.stderr.count(message) == 1
    assert (tmp_path / "log").read_text(encoding="utf-8").count(message) == 1
    assert "by peer" not in done.stderr
    assert done.stderr.count("Traceback") == (code == 2)


@pytest.mark.parametrize(("part", "code"), [("pass", 0), ("raise Stopped('enough')", 75)])
def test_processes_that_end_or_stop_leave_their_group(tmp_path, part, code):
    # What a cluster has set is not meant for us.
    done = two(tmp_path, part, RANK="1", WORLD_SIZE="4", MASTER_ADDR="nowhere.invalid", MASTER_PORT="1")
    assert done.returncode == code, done.stderr
    assert (done.stdout.count("False"), done.stdout.count("True")) == (2, 0)
    assert done.stderr.count("enough") == (code == 75)


WITH_A_FAULT = """
import os, sys
sys.path.insert(0, {folder!r})
from fbnet.search import Search

def update(*arguments):
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

if os.environ.get("RANK") == "1":
    Search.update = update
exec(compile(open({script!r}, encoding="utf-8").read(), {script!r}, "exec"), globals() | {{"__file__": {script!r}}})
"""


def test_a_search_whose_second_process_has_no_memory_says_so(digits, tiny, tmp_path):
    python, script, *options = train(digits, write_table(tmp_path / "table.tsv", tiny), tmp_path / "out", SETTINGS | {"gpu": 2})
    program = tmp_path / "train_supernet.py"
    program.write_text(WITH_A_FAULT.format(folder=os.path.dirname(script), script=script), encoding="utf-8")
    done = subprocess.run([python, program, *options], capture_output=True, text=True, timeout=300)
    message = "process 2 of 2: search.batch_size is 64, which does not fit into the memory of cpu: about "
    assert done.returncode == 1, done.stderr
    assert done.stderr.count(message) == read(tmp_path / "out.log").count(message) == 1
    assert "Traceback" not in done.stderr


def test_a_search_that_fails_alike_in_both_processes_says_so_once(digits, tiny, tmp_path):
    settings = SETTINGS | {"gpu": 2, "weights": SETTINGS["weights"] | {"lr": 1e30}}
    command = train(digits, write_table(tmp_path / "table.tsv", tiny), tmp_path / "out", settings)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    message = "training is no longer finite in epoch 1/4, phase weights, step 2: lower search.weights.lr"
    assert done.returncode == 1, done.stderr
    assert done.stderr.count(message) == read(tmp_path / "out.log").count(message) == 1
    assert "Traceback" not in done.stderr


AVERAGE = """
    torch.manual_seed(ranks.rank)
    kinds = {"dense": (3, 4, 3), "pointwise": (4, 4, 1), "depthwise": (4, 4, 3, 1, 0, 1, 4), "unused": (1, 1, 1)}
    layers = torch.nn.ModuleDict({kind: torch.nn.Conv2d(*arguments) for kind, arguments in kinds.items()})
    layers.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    layers.depthwise(layers.pointwise(layers.dense(images))).square().sum().backward()
    before = [parameter.grad.clone() for parameter in layers.parameters() if parameter.grad is not None]
    ranks.average_gradients(layers.parameters())
    after = [parameter.grad for parameter in layers.parameters() if parameter.grad is not None]
    torch.save([before, after], f"{sys.path[0]}/{ranks.rank}.pt")
"""


def test_gradients_are_averaged_whatever_their_layout(tmp_path):
    done = two(tmp_path, AVERAGE)
    assert done.returncode == 0, done.stderr
    (ones, averaged), (others, same) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(averaged) == 6
    assert not averaged[0].is_contiguous()
    for one, other, mean, again in zip(ones, others, averaged, same, strict=True):
        assert not torch.allclose(one, other)
        assert torch.allclose((one + other) / 2, mean)
        assert torch.equal(mean, again)


class Count(TorchDispatchMode):
    """Counts the operations that do something."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += not func.is_view
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("count", [2, 20])
def test_averaging_takes_as_many_operations_for_many_gradients_as_for_few(monkeypatch, count):
    for name, value in ((PARENT, "0"), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.mul_(3))  # of the other: twice ours
    parameters = [torch.nn.Parameter(torch.zeros(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)) for _ in range(count)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    with Count() as operations:
        Ranks().average_gradients(parameters)
    assert all((parameter.grad == 1.5).all() for parameter in parameters)
    assert operations.number == 4  # joined, summed, divided, put back


def hold(names, count, pipe):
    pipe.send(sorted(take(names, count)))
    time.sleep(60)


def holder(names, count):
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(names, count, theirs), daemon=True)
    process.start()
    return process, ours


def test_two_searches_take_a_device_each_and_a_third_waits_for_a_death(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, one = holder(["a", "b"], 1)
    assert one.recv() == ["a"]
    second, two = holder(["a", "b"], 1)
    assert two.recv() == ["b"]
    third, three = holder(["a", "b"], 1)
    assert not three.poll(1.5)
    os.kill(first.pid, signal.SIGKILL)
    assert three.poll(10)
    assert three.recv() == ["a"]
    both, four = holder(["a", "b"], 2)  # takes none while it cannot have both
    second.kill()
    assert not four.poll(1.5)
    third.kill()
    assert four.poll(10)
    assert four.recv() == ["a", "b"]
    both.kill()
