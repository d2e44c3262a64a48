"""Masks over the candidates of each layer, sampled by the Gumbel-softmax."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Independent samples of the Gumbel distribution (0, 1)."""
    return -torch.empty(tuple(shape)).exponential_(generator=generator).log()


def soft_masks(logits: Tensor, noise: Tensor, temperature: float | Tensor) -> Tensor:
    """softmax((logits + noise) / temperature), both [..., layers, candidates]: each row sums to 1 (FBNet, eq. 5)."""
    return ((logits + noise) / temperature).softmax(dim=-1)


def winners(logits: Tensor, noise: Tensor) -> Tensor:
    """The candidate of each layer with the largest logit + noise, distributed as softmax(logits): [..., layers]."""
    return (logits + noise).argmax(dim=-1)


def one_hot(chosen: Tensor, like: Tensor) -> Tensor:
    """1 for the chosen candidate [..., layers] of each layer and 0 for the others, [..., layers, candidates] as `like`."""
    return torch.zeros_like(like).scatter_(-1, chosen[..., None], 1.0)


def hard_masks(soft: Tensor, chosen: Tensor) -> Tensor:
    """`one_hot` of the chosen, with the gradient of the masks `soft` (GDAS, Dong & Yang 2019)."""
    return one_hot(chosen, soft) + (soft - soft.detach())
