"""How many images fit into a device's memory."""

from collections.abc import Callable

import torch
from torch import Tensor

WORKSPACE = 1.5  # a step's peak, in units of what its forward pass leaves behind for the gradient


def bytes_per_image(forward: Callable[[Tensor], Tensor], resolution: int, device: torch.device) -> float:
    """What a training step needs for each image, estimated from what a few leave behind for the gradient."""
    stored = [_stored(forward, torch.zeros(count, 3, resolution, resolution, device=device)) for count in (4, 8)]
    return WORKSPACE * (stored[1] - stored[0]) / 4


def _stored(forward: Callable[[Tensor], Tensor], images: Tensor) -> int:
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = forward(images.contiguous(memory_format=torch.channels_last))
    del kept  # lived until here: a storage that is freed could be counted again under another tensor's address
    return sum(sizes.values())
