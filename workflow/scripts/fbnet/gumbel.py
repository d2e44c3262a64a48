"""Masks over the candidates of each layer, drawn by the Gumbel-softmax."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Independent draws from the Gumbel distribution (0, 1)."""
    return -torch.empty(tuple(shape)).exponential_(generator=generator).log()


def soft_masks(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """softmax((logits + noise) / temperature), both [layers, candidates]: each row sums to 1 (FBNet, eq. 5)."""
    return ((logits + noise) / temperature).softmax(dim=1)


def winners(logits: Tensor, noise: Tensor) -> list[int]:
    """The candidate of each layer with the largest logit + noise, distributed as softmax(logits); waits for the device."""
    return (logits + noise).argmax(dim=1).tolist()


def hard_masks(soft: Tensor, chosen: Sequence[int]) -> Tensor:
    """1 for the chosen candidate of each layer and 0 for the others, with the gradient of `soft` (GDAS, Dong & Yang 2019)."""
    # built from numbers of the host, not from its tensors: nothing waits for the device
    numbers = torch.arange(soft.shape[1], device=soft.device)
    one = torch.stack([numbers == number for number in chosen]).to(soft.dtype)
    return one + (soft - soft.detach())
