"""Several processes on one search, and several searches on one machine."""

import multiprocessing
import os
import signal
import subprocess
import tempfile
import time

import pytest
import torch

from conftest import write_table
from fbnet.dataset import read_dataset
from fbnet.device import take
from fbnet.latency import read_table
from fbnet.runtime import StopRequest
from fbnet.search import Search
from fbnet.settings import Settings
from test_search import SETTINGS, STOPS, read, train

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize("sampling", ["soft", "single_path"] if STOPS > 1 else ["single_path"])
def test_two_processes_are_one(digits, tiny, tmp_path, sampling):
    """Each has one of the batch's two draws, where one process has both; the run is stopped midway, and goes on."""
    settings = SETTINGS | {"sampling": sampling, "draws_per_batch": 2, "batch_size": 128, "epochs": 2}
    settings["weights"] = settings["weights"] | {"lr": 0.01}  # rounding grows with each step
    table, out = write_table(tmp_path / "table.tsv", tiny), tmp_path / "two"
    command = train(digits, table, out, settings | {"gpu": 2})
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and "networks take" not in read(out.with_suffix(".log")):
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 75
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Found (argmax") == 1
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
