"""What only a GPU can show: `pytest -m gpu`, skipped where there is none."""

import subprocess

import pytest
import torch

from conftest import write_table
from fbnet.architecture import Architecture
from fbnet.dataset import read_dataset
from fbnet.gumbel import gumbel_noise
from fbnet.latency import read_table
from fbnet.machine import describe
from fbnet.profiling import measure, measure_networks
from fbnet.runtime import StopRequest
from fbnet.search import Search
from fbnet.settings import Settings, TrainSettings
from fbnet.sources import prepare_digits
from fbnet.target import Target
from fbnet.training import Training
from test_search import SETTINGS, train
from test_training import OPS, RECIPE

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


def search_on(device, tiny, tmp_path, **changes):
    prepare_digits(tmp_path / "digits", 16)
    table = read_table(write_table(tmp_path / "table.tsv", tiny), tiny, 10)
    return Search(read_dataset(tmp_path / "digits"), table, Settings.of(SETTINGS | changes), torch.device(device))


@pytest.mark.parametrize("sampling", ["soft", "single_path"])
def test_no_step_of_the_weights_waits_for_the_gpu(tiny, tmp_path, sampling):
    search = search_on("cuda", tiny, tmp_path, sampling=sampling)
    search.host_logits = search.supernet.logits().detach().cpu()
    search.supernet.learn("weights")
    noise = gumbel_noise((6, 1, *search.host_logits.shape), torch.Generator().manual_seed(0))
    on_device, batches = noise.to("cuda"), search.batches["weights"]
    steps = enumerate(batches.training(0))
    for step, (images, labels) in steps:
        torch.cuda.set_sync_debug_mode("error" if step >= 3 else "default")  # the first ones load and choose kernels
        search.update(
            batches.augmented(images, 1, True), labels, 1.0, on_device[step], noise[step] if sampling != "soft" else None
        )
        if step == 5:
            break
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("changes", [{}, {"sampling": "single_path"}], ids=["soft", "single path"])
def test_the_gpu_learns_what_the_cpu_learns(tiny, tmp_path, changes):
    """A step in float32: the same weights to rounding; random crops differ from device to device, so there are none."""
    weights = []
    for device in ("cpu", "cuda"):
        search = search_on(device, tiny, tmp_path, precision="float32", **changes)
        search.supernet.learn("weights")
        search.host_logits = search.supernet.logits().detach().cpu()
        noise = gumbel_noise((1, *search.host_logits.shape), torch.Generator().manual_seed(0))
        images, labels = next(search.batches["weights"].training(0))
        host = noise if changes else None
        search.update(search.batches["weights"].normalised(images), labels, 1.0, noise.to(device), host)
        weights.append({name: value.cpu() for name, value in search.supernet.state_dict().items()})
    assert all(torch.allclose(value, weights[1][name], atol=1e-4) for name, value in weights[0].items())


def test_compiled_on_the_gpu_is_eager(tiny, tmp_path):
    search = search_on("cuda", tiny, tmp_path, precision="float32", compile=True)
    assert search.forward is not search.supernet
    search.supernet.learn("weights")
    images = torch.randn(64, 3, 16, 16, device="cuda").contiguous(memory_format=torch.channels_last)
    masks = search.supernet.logits().softmax(1)
    assert torch.allclose(search.forward(images, masks, None), search.supernet(images, masks), atol=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_two_gpus_train_one_search(tiny, tmp_path):
    prepare_digits(tmp_path / "digits", 16)
    table = write_table(tmp_path / "table.tsv", tiny)
    command = train(tmp_path / "digits", table, tmp_path / "search", SETTINGS | {"gpu": 2})
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_trains_on_the_gpu_as_on_the_cpu(digits, tiny, tmp_path, precision):
    dataset, architecture = read_dataset(digits), Architecture("a", tiny, tuple(OPS.split()), 10)
    recipe = TrainSettings.of(RECIPE | {"seed": 0, "gpu": 1, "precision": precision})
    training = Training(dataset, architecture, recipe, torch.device("cuda"))
    training.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    assert training.result()["test_top1"] > 0.5
    assert all(value.device.type == "cpu" for value in training.result()["weights"].values())
