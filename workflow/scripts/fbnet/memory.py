"""How many images fit into a device's memory, and what it looks like when too many were tried."""

import re
from collections.abc import Callable

import psutil
import torch
from torch import Tensor

from fbnet import limits

WORKSPACE = 1.5  # a step's peak, in units of what its forward pass leaves behind for the gradient

# In the words of the CPU's allocator; the CUDA runtime, also within NCCL and Triton; cuBLAS and cuDNN; the C++ library.
_NO_MEMORY = re.compile(r"allocate memory|out of memory|(CUBLAS|CUDNN)_\w*ALLOC(ATION)?_FAILED|bad_alloc")


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody uses; on the CPU no more than container and job allow this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    there, allowed = psutil.virtual_memory().available, limits.free_memory()
    return there if allowed is None else min(there, allowed)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a device or the machine had no memory left, whoever asked for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(_NO_MEMORY.search(str(error)))


def bytes_per_image(forward: Callable[[Tensor], Tensor], resolution: int, device: torch.device) -> float:
    """What a training step needs for each image, estimated from what a few leave behind for the gradient."""
    stored = [_stored(forward, torch.zeros(count, 3, resolution, resolution, device=device)) for count in (4, 8)]
    return WORKSPACE * (stored[1] - stored[0]) / 4


def _stored(forward: Callable[[Tensor], Tensor], images: Tensor) -> int:
    storages = set()  # of which several tensors may be views; kept, so that none is freed and counted again

    def note(tensor: Tensor) -> Tensor:
        storages.add(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward(images.contiguous(memory_format=torch.channels_last))
    return sum(storage.nbytes() for storage in storages)
