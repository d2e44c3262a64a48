"""When memory runs out: whose words are understood, and the sentence that a user gets."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from fbnet.data.dataset import read_dataset
from fbnet.errors import InputError
from fbnet.evaluation.retraining import Training
from fbnet.memory import WORKSPACE, bytes_per_image, is_out_of_memory
from fbnet.runtime import StopRequest
from fbnet.search import Search
from fbnet.settings import Settings
from fbnet.space import Architecture, parse
from recipes import OPS, SETTINGS, recipe

SEARCH_FOR_MORE = (
    "\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more"
    " information.\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
)
NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda error (run with NCCL_DEBUG=INFO for "
    "details), NCCL version 2.27.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
        torch.AcceleratorError("CUDA error: out of memory" + SEARCH_FOR_MORE, 2),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        torch.distributed.DistBackendError(NCCL + "Cuda failure 2 'out of memory'"),
        RuntimeError("std::bad_alloc"),
        MemoryError("Unable to allocate 7.28 TiB for an array with shape (1000000, 1000000) and data type float64"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_want_of_memory_is_known_by_its_words(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered", 710),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k )`"),
        torch.distributed.DistBackendError(NCCL + "Cuda failure 1 'invalid argument'"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out "
                     "of shared memory. Please try to raise your shared memory limit."),
        RuntimeError("expected scalar type BFloat16 but found Float"),
    ],
    ids=lambda error: str(error)[:40],
)  # fmt: skip
def test_other_errors_are_not_want_of_memory(error):
    assert not is_out_of_memory(error)


def test_want_of_memory_is_known_on_this_machine():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bytes_are_counted_once_for_each_storage_also_without_the_device(device):
    layers = nn.Conv2d(3, 16, 1, bias=False), nn.ReLU()

    def forward(images):  # what is kept: the images, for the weight's gradient; active and its exponentials, for all others
        active = layers[1](layers[0](images))
        pixels = active.permute(0, 2, 3, 1).flatten()
        return pixels * pixels.exp()

    with FakeTensorMode(allow_non_fake_inputs=True):
        layers[0].to(device)
        counted = bytes_per_image(forward, 8, torch.device(device))
    assert counted == WORKSPACE * 4 * 8 * 8 * (3 + 16 + 16)


def out_of_memory(*arguments):
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def search(digits, table, **settings):
    return Search(read_dataset(digits), table, Settings.of(SETTINGS | settings), torch.device("cpu"))


def run(loop, folder):
    loop.run(folder / "checkpoint.pt", "run", folder / "tensorboard", 10, StopRequest())


def test_judging_needs_memory_for_a_batch_that_is_not_divided(digits, tiny_table, tmp_path, monkeypatch):
    loop = search(digits, tiny_table, draws_per_batch=4)
    monkeypatch.setattr("fbnet.training.loop.free_bytes", lambda device: 35 * loop.bytes_per_image())
    assert loop.batch_that_fits().startswith("search.batch_size is 64, which does not fit into the memory of cpu: about 56 would")
    monkeypatch.setattr(loop, "evaluate", out_of_memory)
    with pytest.raises(InputError, match=r"search.batch_size is 64, which .* memory of cpu: about 32 would") as error:
        run(loop, tmp_path)
    assert loop.phase == "argmax"
    assert error.value.__context__ is None


def test_a_network_that_is_judged_without_memory_ends_in_the_sentence_too(digits, tiny, tmp_path, monkeypatch):
    architecture = Architecture("network", tiny, parse(OPS, tiny), 10)
    loop = Training(read_dataset(digits), architecture, recipe(batch_size=64), torch.device("cpu"))
    monkeypatch.setattr("fbnet.training.loop.free_bytes", lambda device: 20 * loop.bytes_per_image())
    monkeypatch.setattr(loop, "evaluate", out_of_memory)
    with pytest.raises(InputError, match=r"train.batch_size is 64, which .* memory of cpu: about 16 would"):
        run(loop, tmp_path)
    assert loop.phase == "validation"


def test_the_batch_that_fits_can_be_divided(digits, tiny_table, monkeypatch):
    loop = search(digits, tiny_table, draws_per_batch=3, batch_size=66)
    monkeypatch.setattr("fbnet.training.loop.free_bytes", lambda device: 19 * loop.bytes_per_image())
    sentence = loop.batch_that_fits()
    assert "about 48 would" in sentence
    Settings.of(SETTINGS | {"draws_per_batch": 3, "batch_size": 48})


@pytest.mark.parametrize("free", [0, 3])
def test_where_nothing_fits_no_size_is_promised(digits, tiny_table, tmp_path, monkeypatch, free):
    loop = search(digits, tiny_table)
    one = loop.bytes_per_image()
    monkeypatch.setattr("fbnet.training.loop.free_bytes", lambda device: free * one)
    monkeypatch.setattr(loop.replay, "step", out_of_memory)
    if not free:
        monkeypatch.setattr(loop, "bytes_per_image", out_of_memory)  # the estimate itself takes memory
    with pytest.raises(InputError, match="a smaller one would hardly do either: take a device with more memory"):
        run(loop, tmp_path)


def test_another_error_stays_what_it_is(digits, tiny_table, tmp_path, monkeypatch):
    loop = search(digits, tiny_table)
    monkeypatch.setattr(loop.replay, "step", lambda *arguments: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        run(loop, tmp_path)
