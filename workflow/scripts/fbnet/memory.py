"""How many images fit into a device's memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fbnet.supernet import Supernet

WORKSPACE = 1.5  # a step's peak, in units of what its forward pass leaves behind for the gradient


def bytes_per_image(supernet: Supernet, masks: Tensor, chosen: Sequence[int] | None) -> float:
    """What a training step needs for each image, estimated from what a few leave behind for the gradient."""
    stored = [_stored(supernet, masks, chosen, count) for count in (4, 8)]
    return WORKSPACE * (stored[1] - stored[0]) / 4


def _stored(supernet: Supernet, masks: Tensor, chosen: Sequence[int] | None, count: int) -> int:
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images = torch.zeros(count, 3, *(supernet.space.resolution,) * 2, device=masks.device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = supernet(images.contiguous(memory_format=torch.channels_last), masks, chosen)
    del kept  # lived until here: a storage that is freed could be counted again under another tensor's address
    return sum(sizes.values())
