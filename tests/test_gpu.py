"""What only a GPU can show: `pytest -m gpu`, skipped where there is none."""

import subprocess

import pytest
import torch

from conftest import write_table
from fbnet.profiling import conditions, measure
from fbnet.sources import prepare_digits
from test_search import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")]


def test_cells_are_measured_on_the_gpu(tiny):
    rows = measure(tiny.cells(10), "cuda", threads=1, runs=5)
    assert (rows.latency_us > 0).all()
    assert torch.cuda.get_device_name() in conditions("cuda", 1)["device"]


def test_a_search_on_the_gpu_is_sampled_without_one(script, tiny, tmp_path):
    prepare_digits(tmp_path / "digits", 16)
    table = write_table(tmp_path / "table.tsv", tiny)
    out = tmp_path / "search"
    done = subprocess.run(train(tmp_path / "digits", table, out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Computing on the GPU" in done.stderr
    sampled = script(
        "sample_architecture",
        *("--supernet", out / "supernet.pt", "--table", table, "--name", "found", "--out", tmp_path / "found.tsv"),
        env={"CUDA_VISIBLE_DEVICES": ""},
    )
    assert sampled.returncode == 0, sampled.stderr
