"""Whole steps as a GPU runs them, without one: data types, layouts, gradients, and that nothing waits for the device."""

import re
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.nn import functional

from absent_gpu import FLOAT32, FLOAT32_UNLESS_SAID, CudaAutocast, NoWaits, Operations, fake_gpu
from conftest import ROOT, write_table
from fbnet.data.batches import Batches
from fbnet.data.dataset import Dataset, read_dataset
from fbnet.errors import InputError
from fbnet.evaluation.retraining import Training
from fbnet.latency import LatencyTable, Target, read_table
from fbnet.latency.torch_engine import DTYPES, FORMATS, Moment, TorchEngine
from fbnet.runtime import StopRequest
from fbnet.search import Search, StochasticSupernet, Supernet
from fbnet.search.cost import cost
from fbnet.search.judging import accuracy
from fbnet.search.mixed import MixedOperation
from fbnet.settings import Settings, TrainSettings, of_method
from fbnet.space import CANDIDATES, OPERATORS, Architecture, Cell, in_space, read_space
from recipes import OPS, RECIPE, SETTINGS
from whole_steps import KINDS, Outputs, check_search, check_training, gradients_of, is_last, layer_outputs

pytestmark = pytest.mark.xdist_group("fake tensors")  # what PyTorch first learns of them costs seconds in each worker
SHARED = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
FULL = {key: value for key, value in of_method(CONFIG["search"]).items() if key != "method"}


def images_of(space, count: int, margin: int = 0) -> Dataset:
    rng = np.random.default_rng(0)
    size = space.resolution + margin
    arrays = [
        array for n in (count, 500) for array in (rng.integers(0, 256, (n, size, size, 3), np.uint8), rng.integers(0, 10, n))
    ]
    return Dataset("noise", tuple("0123456789"), space.resolution, (0.5,) * 3, (0.25,) * 3, *arrays)


def table_of(space) -> LatencyTable:
    return LatencyTable(space, (100.0,) * 3, tuple(tuple(10.0 + n for n in range(len(layer))) for layer in space.layers))


@pytest.fixture(scope="module")
def cifar():
    return read_space("fbnet_cifar")


# The emulation


def test_the_casting_lists_are_those_of_the_installed_pytorch():
    header = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text(encoding="utf-8")

    def listed(macro: str) -> set[str]:
        [body] = re.findall(rf"#define {macro}\(_\)(.*?)\n\n", header, re.DOTALL)
        return set(re.findall(r"_\((\w+)", body)) - {"ADD_NS"}

    assert listed("AT_FORALL_FP32") == FLOAT32
    assert listed("AT_FORALL_FP32_SET_OPT_DTYPE") == FLOAT32_UNLESS_SAID


OTHER = torch.ones(4, 4, 4)
CALLS = {  # of functions with more arguments than one tensor
    **dict.fromkeys(("softmax", "log_softmax", "cumprod", "cumsum", "logsumexp"), (1,)),
    **dict.fromkeys(("l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss", "kl_div", "dist", "cdist"), (OTHER,)),
    **dict.fromkeys(("binary_cross_entropy_with_logits", "cosine_similarity"), (OTHER,)),
    **{"pow": (2,), "layer_norm": ((4,),), "group_norm": (2,), "renorm": (2, 0, 1.0)},
}
CAST = """exp log log1p rsqrt reciprocal tan pow softplus logsumexp l1_loss mse_loss smooth_l1_loss huber_loss kl_div dist cdist
    binary_cross_entropy_with_logits layer_norm group_norm renorm cosine_similarity sum prod softmax log_softmax cumsum cumprod"""


def called(name: str, device: torch.device):
    function = getattr(torch, name, None) or getattr(functional, name)
    arguments = [value.to(device, torch.bfloat16) if isinstance(value, torch.Tensor) else value for value in CALLS.get(name, ())]
    return function(torch.ones(4, 4, 4, device=device, dtype=torch.bfloat16), *arguments).dtype


@pytest.mark.parametrize("name", [*CAST.split(), "relu", "mean", "amax", "sqrt"])
def test_the_emulation_casts_as_cuda_does(name):
    with fake_gpu(), torch.autocast("cuda", torch.bfloat16):
        there = called(name, CUDA)
    with torch.autocast("cpu", torch.bfloat16), CudaAutocast():
        here = called(name, CPU)
    assert here == there == (torch.float32 if name in FLOAT32 | FLOAT32_UNLESS_SAID else torch.bfloat16)


def test_waiting_is_seen():
    with fake_gpu():
        x, here = torch.ones(3, device=CUDA), torch.ones(3)
        for wait in (x.cpu, lambda: here.to(CUDA), lambda: x.copy_(here), lambda: here.copy_(x), x.nonzero, x.sum().item):
            with NoWaits(), pytest.raises((AssertionError, DataDependentOutputException)):
                wait()
        with NoWaits():
            here.to(CUDA, non_blocking=True)
            x.to(torch.float16).add_(1)


# The search, on the CPU's tensors with real numbers, as it is made for CUDA


@pytest.fixture(scope="module")
def tiny_search(digits, tiny, tmp_path_factory):
    table = read_table(write_table(tmp_path_factory.mktemp("table") / "table.tsv", tiny), tiny, 10)

    def make(device=CPU, made_for="cuda", **changes):
        return Search(read_dataset(digits), table, Settings.of(SETTINGS | changes), device, made_for=made_for)

    return make


@pytest.mark.parametrize(("draws", "precision"), [(1, "bfloat16"), (2, "bfloat16"), (1, "float32")])
@SHARED
@pytest.mark.parametrize(("sampling", "phase"), KINDS)
def test_steps_of_the_search_with_the_casts_of_cuda(tiny_search, sampling, phase, shared, draws, precision):
    changes = {"sampling": sampling, "shared_weights": shared, "draws_per_batch": draws}
    with CudaAutocast():
        check_search(tiny_search(precision=precision, **changes), phase, precision)


@pytest.mark.parametrize(
    ("norm", "sampling", "shared"),
    [("bn", sampling, shared) for sampling in ("soft", "single_path") for shared in (False, True)]
    + [("gn8", "soft", False), ("frozen", "single_path", False), ("none", "soft", True)],
)
def test_every_operator_and_norm_learns_with_the_casts_of_cuda(digits, norm, sampling, shared):
    space = read_space({"base": "tiny", "norm": norm, "candidates": "all", "expansion": 4})
    weights = SETTINGS["weights"] | {"lr": 1e-4}
    changes = {"sampling": sampling, "shared_weights": shared, "precision": "bfloat16", "weights": weights, "batch_size": 16}
    settings = Settings.of(SETTINGS | changes)
    search = Search(read_dataset(digits), table_of(space), settings, CPU, made_for="cuda")
    with CudaAutocast():
        for phase in ("weights", "theta"):
            gradients = gradients_of(search, phase)
            assert gradients.dtype == torch.float32
            assert gradients.isfinite().all()
            assert gradients.any()


@SHARED
@pytest.mark.parametrize(("sampling", "phase"), KINDS)
def test_steps_made_for_cuda_have_the_gradients_of_those_for_the_cpu(tiny_search, sampling, phase, shared):
    changes = {
        "sampling": sampling,
        "shared_weights": shared,
        "seed": 1,
    }  # by some, theta has next to no gradient in a single path
    exact = gradients_of(tiny_search(made_for="cpu", precision="float32", **changes), phase)
    for precision, tolerance in (("float32", 1e-3), ("bfloat16", 0.5)):
        with CudaAutocast():
            found = gradients_of(tiny_search(precision=precision, **changes), phase)
        assert (found - exact).norm() < tolerance * exact.norm(), precision


def test_flat_weights_have_the_gradients_of_the_plain_ones(tiny):
    """Of groups, shuffles, kernels that reach further than the map, and operators that are not joined."""
    names = ["ir_k3_e1", "ir_k5_s2", "ir_k7_e3", "ir_k3_e3_se", "shift_5x5", "skip"]
    space = read_space({"base": "tiny", "candidates": names, "expansion": 2})
    torch.manual_seed(0)
    plain = StochasticSupernet(space, 10, table_of(space), "zeros").train()
    flat = StochasticSupernet(space, 10, table_of(space), "zeros").train()
    flat.load_state_dict(plain.state_dict())
    flat.flatten()
    assert len(flat.weights()) < len(plain.weights()) / 2
    assert sum(weight.numel() for weight in flat.weights()) == sum(weight.numel() for weight in plain.weights())
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    masks = torch.rand(3, 6)
    for supernet in (plain, flat):
        optimizer = torch.optim.SGD(supernet.weights(), 0.1, fused=True)
        supernet(x, masks).square().mean().backward()
        optimizer.step()
    for (name, ours), theirs in zip(flat.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), name
    assert not flat.flat.storage[:16].any()


# Numbers that a captured step would repeat


@SHARED
@pytest.mark.parametrize(("sampling", "phase"), [("soft", "weights"), ("soft", "theta")])
def test_no_number_of_a_step_is_the_host_s(tiny_search, sampling, phase, shared):
    """Of another epoch, with another rate, temperature and draw, a step dispatches the same with the same numbers."""
    calls = []
    for epoch, step in ((1, 0), (3, 2)):
        search = tiny_search(sampling=sampling, shared_weights=shared, precision="bfloat16", epochs=6)
        search.epoch, search.phase = epoch, phase
        search.begin()
        images, labels = next(search.batches[phase].training(step))
        images = search.batches[phase].augmented(images, 1, False)
        drawn = (search.masks if phase == "weights" else search.noise)[step]
        search.update(images, labels, drawn, [])
        with CudaAutocast(), Operations() as operations:
            search.update(images, labels, drawn, [])
        calls.append(operations.calls)
    assert calls[0] == calls[1]


@pytest.fixture(scope="module")
def tiny_training(digits, tiny):
    def make(device=CPU, **changes):
        recipe = TrainSettings.of(RECIPE | {"seed": 0, "gpu": 1} | changes)
        teaching = Supernet(tiny, 10).state_dict() if recipe.teacher else None
        return Training(read_dataset(digits), Architecture("a", tiny, tuple(OPS.split()), 10), recipe, device, None, teaching)

    return make


TAUGHT = pytest.mark.parametrize("teacher", [0, 0.5], ids=["alone", "taught"])


@TAUGHT
def test_no_number_of_a_training_s_step_is_the_host_s(tiny_training, teacher):
    calls = []
    for epoch in (1, 4):
        training = tiny_training(precision="bfloat16", teacher=teacher)
        training.epoch = epoch
        training.begin()
        images, labels = next(training.batches["train"].training(epoch))
        images = training.batches["train"].augmented(images, 1, False)
        training.advance(images, labels)
        with CudaAutocast(), Operations() as operations:
            training.update(images, labels)
        calls.append(operations.calls)
    assert calls[0] == calls[1]


@TAUGHT
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_steps_of_a_training_with_the_casts_of_cuda(tiny_training, precision, teacher):
    with CudaAutocast():
        check_training(tiny_training(precision=precision, teacher=teacher), precision)


def test_a_training_with_the_casts_of_cuda_learns(tiny_training, tmp_path):
    training = tiny_training(precision="bfloat16")
    with CudaAutocast():
        training.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    assert training.result()["test_top1"] > 0.9


def test_a_search_with_the_casts_of_cuda_learns_as_in_float32(tiny_search, tmp_path):
    curves, warm = [], {"start": 5.0, "decay": 0.0}
    for precision in ("float32", "bfloat16"):
        search = tiny_search(precision=precision, warmup_epochs=3, batch_size=32, temperature=warm)
        with CudaAutocast():
            search.run(tmp_path / f"{precision}.pt", "run", tmp_path / precision, 10, StopRequest())
        curves.append([row["ce"] for row in search.history if row["phase"] == "weights"])
    assert curves[0][0] > 2.2 > 1.9 > curves[0][-1]
    assert curves[1] == pytest.approx(curves[0], abs=0.05)


# On a GPU that is not there: the full search


@pytest.mark.parametrize(
    ("sampling", "phase", "draws", "shared"),
    [(*kind, 1, shared) for kind in KINDS for shared in (False, True)] + [(*kind, 2, False) for kind in KINDS[:2]],
)
def test_a_step_of_the_full_search_on_a_gpu(cifar, sampling, phase, draws, shared):
    settings = Settings.of(FULL | {"sampling": sampling, "shared_weights": shared, "draws_per_batch": draws})
    with fake_gpu():
        search = Search(images_of(cifar, 1200), table_of(cifar), settings, CUDA)
        search.phase = phase
        outputs = layer_outputs(search.supernet)
        if (sampling, phase) == ("single_path", "weights"):
            with pytest.raises(DataDependentOutputException):  # for all paths of the phase
                search.begin()
            search.paths = [[[number % 9 for number in range(22)]] * draws] * len(search.masks)
        else:
            search.begin()
        batches = search.batches[phase]
        images, labels = next(batches.training(0))
        with NoWaits():
            images = batches.augmented(images, **settings.augment)
        if (sampling, phase) == ("single_path", "theta"):
            with pytest.raises(DataDependentOutputException):  # for the step's paths: theta has moved
                search.advance(images, labels)
            with NoWaits():
                search.update(images, labels, search.noise[0], [[number % 9 for number in range(22)]] * draws)
        else:
            with NoWaits():
                search.advance(images, labels)
        parameters = search.optimizers[phase].param_groups[0]["params"]
        assert {(parameter.device, parameter.dtype) for parameter in parameters} == {(CUDA, torch.float32)}
        assert len(outputs) == 22 * draws
        assert {(y.dtype, is_last(y), y.device) for y in outputs} == {(torch.bfloat16, True, CUDA)}


@SHARED
@pytest.mark.parametrize(("norm", "dtype"), [("bn", "bfloat16"), ("none", "bfloat16"), ("gn4", "float32"), ("frozen", "float32")])
def test_every_operator_keeps_to_its_data_type_and_to_channels_last(norm, dtype, shared):
    """In float32 those of norms that are computed so: group norm by CUDA's list, frozen statistics by their own data type."""
    names = [name for name in CANDIDATES if name != "skip"]
    with fake_gpu():
        for stride in (1, 2):
            cells = tuple(Cell("1", name, 16, 16, 8, 8, stride, OPERATORS[name].expansion or 4, norm) for name in names)
            layer = MixedOperation(cells, "cuda", shared).to(CUDA, memory_format=torch.channels_last).train()
            x = torch.zeros(8, 16, 8, 8, device=CUDA, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16), NoWaits():
                found = [layer(x, torch.zeros(len(names), device=CUDA)), *(layer.path(x, number) for number in range(len(names)))]
            wrong = {name: (y.dtype, y.stride()) for name, y in zip(["together", *names], found, strict=True) if not is_last(y)}
            assert not wrong
            assert {y.dtype for y in found} == {DTYPES[dtype]}


@TAUGHT
def test_a_step_of_the_full_training_on_a_gpu(cifar, teacher):
    ops = in_space("fbnet_a", cifar)
    recipe = TrainSettings.of(CONFIG["train"] | {"seed": 0, "drops": (), "teacher": teacher})
    teaching = Supernet(cifar, 10, "cuda", shared=True).state_dict() if teacher else None
    with fake_gpu():
        training = Training(images_of(cifar, 1200), Architecture("fbnet_a", cifar, ops, 10), recipe, CUDA, None, teaching)
        teachers = Outputs(training.teacher, (nn.Conv2d, nn.BatchNorm2d)) if teacher else None
        outputs = Outputs(training.network, (nn.Conv2d, nn.BatchNorm2d))
        training.begin()
        images, labels = next(training.batches["train"].training(0))
        for _ in range(4):
            with NoWaits():
                training.advance(training.batches["train"].augmented(images, **recipe.augment), labels)
            training.step += 1
        assert training.replay.graph.replays == 2
        assert set(outputs.found.values()) == {(torch.bfloat16, True)}
        assert not teacher or set(teachers.found.values()) == {(torch.bfloat16, True)}
        judged = Outputs(training.average, (nn.Conv2d, nn.BatchNorm2d))
        training.phase = "validation"
        with torch.no_grad():
            training.evaluate()
        assert set(judged.found.values()) == {(torch.float32, True)}  # as the exported network computes


@pytest.mark.parametrize("phase", ["weights", "theta"])
def test_a_step_of_a_search_on_photographs_on_a_gpu(phase):
    space, augment = read_space({"base": "tiny", "resolution": 224}), FULL["augment"] | {"jitter": 0.4}
    settings = Settings.of(FULL | {"batch_size": 16, "augment": augment})
    with fake_gpu():
        search = Search(images_of(space, 100, margin=32), table_of(space), settings, CUDA)
        search.phase = phase
        search.begin()
        outputs = layer_outputs(search.supernet)
        images, labels = next(search.batches[phase].training(0))
        assert images.shape == (16, 256, 256, 3)
        with NoWaits():
            images = search.batches[phase].augmented(images, **settings.augment)
            assert images.shape == (16, 3, 224, 224)
            search.advance(images, labels)
        assert {(y.dtype, is_last(y), y.device) for y in outputs} == {(torch.bfloat16, True, CUDA)}


def test_a_training_on_photographs_on_a_gpu():
    space, augment = read_space("fbnet_224"), CONFIG["train"]["augment"] | {"jitter": 0.4, "erasing": 0.25}
    recipe = TrainSettings.of(CONFIG["train"] | {"seed": 0, "drops": (), "batch_size": 16, "augment": augment})
    with fake_gpu():
        photographs = images_of(space, 100, margin=32)
        training = Training(photographs, Architecture("fbnet_a", space, in_space("fbnet_a", space), 10), recipe, CUDA)
        training.begin()
        images, labels = next(training.batches["train"].training(0))
        for _ in range(4):
            with NoWaits():
                training.advance(training.batches["train"].augmented(images, **recipe.augment), labels)
            training.step += 1
        assert training.replay.graph.replays == 2
        training.phase = "validation"
        with torch.no_grad():
            assert training.evaluate() == 10


def test_the_judging_of_architectures_on_a_gpu(cifar):
    with fake_gpu():
        search = Search(images_of(cifar, 1200), table_of(cifar), Settings.of(FULL), CUDA)
        ops = tuple(layer[number % 9].op for number, layer in enumerate(cifar.layers))
        batches = search.batches["theta"]
        found = accuracy(search.supernet.state_dict(), cifar, ops, 10, batches)
        assert (found.device, found.shape) == (CUDA, ())


class AtOnce:
    """An executor that does what it is told in the same thread, since fake tensors do not leave or enter one."""

    def __init__(self, threads):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize(
    ("margin", "augment"),
    [(0, {"crop": "auto"}), (5, {"crop": "auto", "jitter": 0.4, "erasing": 0.5})],
    ids=["padded", "resized, jittered, erased"],
)
def test_batches_on_a_gpu(cifar, resident, margin, augment, monkeypatch):
    monkeypatch.setattr("fbnet.data.batches.ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self: np.zeros(self.shape, np.int64))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    with fake_gpu():
        batches, count = Batches(images_of(cifar, 200, margin), np.arange(200), 64, CUDA, resident), 0
        found = batches.training(0)
        first = next(found)  # of resident ones, the order of the whole phase goes to the device here
        with NoWaits():
            for images, labels in (first, *found):
                assert images.shape == (64, 32 + margin, 32 + margin, 3)
                x = batches.augmented(images, 4, True, **augment)
                assert (x.device, x.dtype, x.shape, is_last(x)) == (CUDA, torch.float32, (64, 3, 32, 32), True)
                assert labels.device == CUDA
                count += 1
        assert count == 3


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cells_as_they_are_profiled_on_a_gpu(dtype, memory_format):
    space = read_space({"base": "tiny", "candidates": "all", "expansion": 4})
    target = Target(device="cuda", dtype=dtype, memory_format=memory_format, batch=4)
    with fake_gpu():
        engine = TorchEngine(space.cells(10), target, Moment)
        for number in range(len(CANDIDATES)):
            chain = engine.network(space.network_cells([layer[number].op for layer in space.layers], 10))
            with torch.inference_mode(), NoWaits():
                x, wrong = chain.images, []
                for module in chain.modules:
                    x = module(x)
                    if x.dtype != DTYPES[dtype] or (x.ndim == 4 and not x.is_contiguous(memory_format=FORMATS[memory_format])):
                        wrong.append((x.dtype, x.stride()))
            assert x.shape == (4, 10)
            assert not wrong, CANDIDATES[number]
        assert len(chain.laps()) == len(chain.modules)


@pytest.mark.parametrize(("draws", "mode"), [(1, "reduce-overhead"), (2, "default")])
def test_gradients_of_several_draws_lie_in_no_graph_s_memory(tiny_search, monkeypatch, draws, mode):
    """With reduce-overhead they would: the forward pass of the next draw takes it again."""
    modes = []
    monkeypatch.setattr(torch, "compile", lambda supernet, mode, dynamic: modes.append(mode) or supernet)
    with fake_gpu():
        tiny_search(CUDA, compile=True, draws_per_batch=draws)
    assert modes == [mode]


def test_want_of_memory_while_compiling_is_a_sentence(tiny_search, monkeypatch):
    def compiled(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: compiled)
    with pytest.raises(InputError, match="batch_size is 64, which does not fit into the memory of cpu"):
        tiny_search(compile=True)


@pytest.mark.parametrize("method", ["fbnet", "one_shot"])
def test_what_a_supernet_costs_is_found_out_on_a_gpu(tiny, method, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    values = of_method(CONFIG["search"] | {"method": method, "batch_size": 64})
    with fake_gpu():
        found = cost(tiny, 10, values, 2000, CUDA)
    assert found.steps["weights"] == 25
    assert found.bytes > 12 * found.parameters
