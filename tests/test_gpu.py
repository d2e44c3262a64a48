"""What only a GPU can show: `pytest -m gpu`, skipped where there is none."""

import subprocess

import pytest
import torch

from conftest import write_table
from fbnet.machine import describe
from fbnet.profiling import measure, measure_networks
from fbnet.sources import prepare_digits
from fbnet.target import Target
from test_search import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")]


@pytest.mark.parametrize(
    "target",
    [
        Target(device="cuda"),
        Target(device="cuda", dtype="float16", memory_format="channels_last", batch=32),
        Target(device="cuda", mode="graphs"),
        Target(device="cuda", mode="compile"),
    ],
    ids=lambda target: " ".join(target.settings().values()),
)
def test_cells_and_networks_are_measured_on_the_gpu(tiny, target):
    assert all(row["latency_us"] >= 0 for row in measure(tiny, 10, target, precision=0.1, runs=5).rows)
    networks = measure_networks(tiny, 10, target, [("skip",) * 3, ("ir_k5_e3",) * 3], runs=3, times=2)
    assert (networks.us > 0).all()
    assert describe(target)["machine"] == torch.cuda.get_device_name()


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
