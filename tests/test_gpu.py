"""What only a GPU can show: `pytest -m gpu`, or `make gpu-tests`. Without one, tests/search/test_steps.py runs the same steps."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import pytest
import torch

from conftest import SPACES, write_table
from fbnet.data.dataset import read_dataset
from fbnet.errors import Stopped
from fbnet.evaluation.retraining import Training
from fbnet.latency import read_header, read_table
from fbnet.runtime import StopRequest
from fbnet.search import OneShot, Search, Supernet
from fbnet.settings import OneShotSettings, Settings, TrainSettings
from fbnet.space import Architecture
from recipes import ONE_SHOT, OPS, RECIPE, SETTINGS, train
from whole_steps import KINDS, Outputs, check_search, check_training, gradients_of, steps_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")]
CUDA = torch.device("cuda")
PRECISIONS = ["float32", *(["bfloat16"] if torch.cuda.is_available() and torch.cuda.is_bf16_supported(False) else [])]


TAUGHT = pytest.mark.parametrize("teacher", [0, 0.5], ids=["alone", "taught"])


@pytest.fixture
def search(digits, tiny, tmp_path):
    table = read_table(write_table(tmp_path / "table.tsv", tiny), tiny, 10)

    def make(device=CUDA, **changes):
        return Search(read_dataset(digits), table, Settings.of(SETTINGS | changes), device)

    return make


@pytest.fixture
def one_shot(digits, tiny):
    def make(device=CUDA, **changes):
        return OneShot(read_dataset(digits), tiny, OneShotSettings.of(ONE_SHOT | changes), device)

    return make


@pytest.fixture
def training(digits, tiny):
    def make(**changes):
        recipe = TrainSettings.of(RECIPE | {"seed": 0, "gpu": 1} | changes)
        torch.manual_seed(1)
        teaching = Supernet(tiny, 10, shared=True).state_dict() if recipe.teacher else None
        return Training(read_dataset(digits), Architecture("a", tiny, tuple(OPS.split()), 10), recipe, CUDA, None, teaching)

    return make


@contextmanager
def no_waits() -> Iterator[None]:
    """Within it, PyTorch raises where it would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def exact(monkeypatch):
    """Products in float32 as the CPU has them, and convolutions whose sums have an order."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize(("sampling", "phase"), KINDS)
def test_steps_of_the_search(search, sampling, phase, draws, precision, shared):
    changes = {"sampling": sampling, "shared_weights": shared, "draws_per_batch": draws}
    check_search(search(precision=precision, **changes), phase, precision)


@TAUGHT
@pytest.mark.parametrize("precision", PRECISIONS)
def test_steps_of_a_training(training, precision, teacher):
    check_training(training(precision=precision, teacher=teacher), precision)


def check_that_no_step_waits(one, phase):
    steps_of(one, phase)  # the first ones load and choose kernels
    one.begin()
    batches = one.batches[phase].training(0)
    images, labels = next(batches)  # the order of the whole phase goes to the device
    with no_waits():
        one.advance(one.batches[phase].augmented(images, 1, True), labels)


@pytest.mark.parametrize(("sampling", "phase"), [kind for kind in KINDS if kind != ("single_path", "theta")])
def test_no_step_waits_for_the_device(search, sampling, phase):
    """But those of a single path's theta, which must know the path."""
    check_that_no_step_waits(search(sampling=sampling), phase)


def test_no_step_of_a_one_shot_training_waits_for_the_device(one_shot):
    check_that_no_step_waits(one_shot(), "weights")


@TAUGHT
def test_no_step_of_a_training_waits_for_the_device(training, teacher):
    one = training(teacher=teacher)
    one.begin()
    for step, (images, labels) in zip(range(5), one.batches["train"].training(0), strict=False):
        with no_waits() if step > 2 else nullcontext():  # the first ones load and choose kernels
            one.advance(one.batches["train"].augmented(images, 1, True), labels)


@pytest.mark.parametrize(("sampling", "phase"), KINDS)
def test_the_gpu_has_the_gradients_of_the_cpu(search, sampling, phase, exact):
    wanted = gradients_of(search(torch.device("cpu"), sampling=sampling, precision="float32"), phase)
    for precision, tolerance in zip(PRECISIONS, (1e-3, 0.3), strict=False):
        found = gradients_of(search(sampling=sampling, precision=precision), phase).cpu()
        # Norms undo what a path is multiplied by: the gradient of its theta is all but rounding.
        assert (found - wanted).norm() < tolerance * wanted.norm().clamp(min=1e-5), precision


def test_one_shot_training_has_the_gradients_of_the_cpu(one_shot, exact):
    wanted = gradients_of(one_shot(torch.device("cpu"), precision="float32"), "weights")
    for precision, tolerance in zip(PRECISIONS, (1e-3, 0.3), strict=False):
        found = gradients_of(one_shot(precision=precision), "weights").cpu()
        assert (found - wanted).norm() < tolerance * wanted.norm(), precision


def learned(one, phase: str, usable: bool, count: int = 8) -> torch.Tensor:
    """All that so many steps have moved, replayed as a graph from the third on, or none of them."""
    one.replay.usable = usable
    steps_of(one, phase, count)
    assert (one.replay.graph is not None) == usable
    values = [value.flatten().double() for module in one.modules.values() for value in module.state_dict().values()]
    means = one.means.read(one.ranks)
    return torch.cat([*values, torch.tensor([means["loss"], means["top1"]], device=CUDA)])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("changes", [{}, {"draws_per_batch": 2}, {"shared_weights": True}], ids=["plain", "draws", "shared"])
@pytest.mark.parametrize("phase", ["weights", "theta"])
def test_replayed_steps_of_a_search_are_those_that_are_written(search, phase, changes, precision, exact):
    found = [learned(search(sampling="soft", precision=precision, **changes), phase, usable) for usable in (False, True)]
    assert torch.equal(*found)


@TAUGHT
@pytest.mark.parametrize("precision", PRECISIONS)
def test_replayed_steps_of_a_training_are_those_that_are_written(training, precision, teacher, exact):
    found = [learned(training(precision=precision, dropout=0.5, teacher=teacher), "train", usable) for usable in (False, True)]
    assert torch.equal(*found)


def test_a_step_that_waits_goes_on_without_a_graph(training, caplog):
    one = training()
    written = one.replay.step

    def step(images, labels):
        found = written(images, labels)
        found[0].item()
        return found

    one.replay.step = step
    steps_of(one, "train", 8)
    assert not one.replay.usable
    assert "No CUDA graph of a step here" in caplog.text
    assert 1.5 < one.means.read(one.ranks)["ce"] < 3.0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("draws", [1, 2])
def test_compiled_steps_learn_what_eager_ones_learn(search, draws, precision, exact):
    found = []
    for compiled in (False, True):
        one = search(precision=precision, draws_per_batch=draws, compile=compiled)
        assert (one.forward is not one.supernet) == compiled
        found.append(gradients_of(one, "weights"))
        steps_of(one, "weights")
        steps_of(one, "theta")
    assert (found[1] - found[0]).norm() < (1e-3 if precision == "float32" else 0.2) * found[0].norm()


class StopAfter(StopRequest):
    """As a signal that comes after so many looks."""

    def __init__(self, looks: int):
        self.looks = looks

    @property
    def signal(self) -> str | None:
        self.looks -= 1
        return "SIGTERM" if self.looks < 0 else None


def whole_and_stopped(make, tmp_path) -> list[dict]:
    """What two runs found, of which the second is stopped several times, and goes on."""
    found = []
    for name, looks in (("whole", 10**9), ("stopped", 30)):
        folder = tmp_path / name
        folder.mkdir()
        while name not in {one["name"] for one in found}:
            loop = make()
            with suppress(Stopped):
                loop.run(folder / "checkpoint.pt", "run", folder / "tensorboard", 10, StopAfter(looks))
                found.append(loop.result() | {"name": name})
    assert all(torch.equal(value, found[1]["weights"][name]) for name, value in found[0]["weights"].items())
    return found


@pytest.mark.parametrize("sampling", ["soft", "single_path"])
def test_a_search_goes_on_bit_for_bit_where_sums_have_an_order(search, tmp_path, sampling, exact):
    found = whole_and_stopped(lambda: search(sampling=sampling), tmp_path)
    assert all(map(torch.equal, found[0]["theta"], found[1]["theta"]))


def test_a_one_shot_training_goes_on_bit_for_bit_where_sums_have_an_order(one_shot, tmp_path, exact):
    found = whole_and_stopped(lambda: one_shot(rated=20), tmp_path)  # of which all must fit between two stops
    assert all(map(torch.equal, found[0]["theta"], found[1]["theta"]))


def test_a_training_goes_on_bit_for_bit_where_sums_have_an_order(training, tmp_path, exact):
    found = whole_and_stopped(training, tmp_path)
    assert found[0]["test_top1"] == found[1]["test_top1"] > 0.5
    assert all(value.device.type == "cpu" for value in found[0]["weights"].values())


def test_a_network_is_judged_in_float32(training):
    one = training()
    outputs = Outputs(one.average, (torch.nn.Conv2d, torch.nn.BatchNorm2d))
    one.phase = "validation"
    with torch.no_grad():
        one.evaluate()
    assert set(outputs.found.values()) == {(torch.float32, True)}


@pytest.mark.parametrize("mode", ["eager", "graphs", "compile"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_table_foretells_networks(script, tmp_path, record_property, mode, dtype):
    """Of the default space, by the scripts that a user calls; its images are many, so that the GPU has something to do."""
    options = ["--space", SPACES / "fbnet_cifar.yaml", "--device", "cuda", "--mode", mode, "--dtype", dtype, "--batch", "64"]
    options += ["--memory-format", "channels_last"]
    if mode == "compile":
        options[1] = SPACES / "tiny.yaml"
    table, validation = tmp_path / "gpu.tsv", tmp_path / "validation.tsv"
    for name, extra in (
        ("profile_latency", ["--runs", "30", "--out", table]),
        ("validate_latency", ["--table", table, "--networks", "16", "--out", validation]),
    ):
        done = script(name, *options, *extra)
        assert done.returncode == 0, done.stderr
    header, found = read_header(table), read_header(validation)
    assert header["machine"] == torch.cuda.get_device_name()
    assert header["driver"]
    record_property("validation", found["result"])
    if mode != "compile":
        assert float(found["mean_error"]) < 0.1
        assert float(found["spearman"]) > 0.9


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_two_gpus_train_one_search(digits, tiny, tmp_path):
    table = write_table(tmp_path / "table.tsv", tiny)
    command = train(digits, table, tmp_path / "search", SETTINGS | {"gpu": 2})
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_search_on_the_gpu_is_sampled_without_one(script, digits, tiny, tmp_path):
    table, out = write_table(tmp_path / "table.tsv", tiny), tmp_path / "search"
    done = subprocess.run(train(digits, table, out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Computing on the GPU" in done.stderr
    sampled = script(
        "sample_architecture",
        *("--supernet", out / "supernet.pt", "--table", table, "--name", "found", "--out", tmp_path / "found.tsv"),
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert sampled.returncode == 0, sampled.stderr
