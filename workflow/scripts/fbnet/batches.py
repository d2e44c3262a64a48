"""Batches for training: whole-batch crop, flip and normalisation on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fbnet.dataset import Dataset

BN_IMAGES = 2048  # enough for the statistics of a batch norm to settle, and a few seconds at most


def split(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `count` training images in two disjoint random parts, `share` of them for the weights, the rest for theta."""
    order = np.random.default_rng(seed).permutation(count)
    first = round(count * share)
    return np.sort(order[:first]), np.sort(order[first:])


@dataclass
class Batches:
    """Some of a dataset's training images, ready for a device. Random choices come from torch's global generator."""

    dataset: Dataset
    indices: np.ndarray
    batch_size: int
    device: torch.device

    def __len__(self) -> int:
        """Number of training batches: an incomplete last one is left out."""
        return len(self.indices) // self.batch_size

    def training(self, crop_padding: int, flip: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in a new random order, augmented: float [batch, 3, H, W] in channels_last, labels [batch]."""
        order = self.indices[torch.randperm(len(self.indices)).numpy()]
        for number in range(len(self)):
            images, labels = self._load(order[number * self.batch_size : (number + 1) * self.batch_size])
            images = crop(images, crop_padding) if crop_padding else images
            yield self._normalise(random_flip(images) if flip else images), labels

    def plain(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in fixed order, normalised only; the last batch may be smaller."""
        for start in range(0, len(self.indices), self.batch_size):
            images, labels = self._load(self.indices[start : start + self.batch_size])
            yield self._normalise(images), labels

    def for_norms(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches of some BN_IMAGES images in all, normalised only, each evenly spaced over a set that may be sorted."""
        size = min(self.batch_size, len(self.indices))
        count = min(-(-BN_IMAGES // size), len(self.indices) // size)
        spaced = self.indices[np.linspace(0, len(self.indices) - 1, count * size).round().astype(int)]
        for number in range(count):
            images, labels = self._load(spaced[number::count])
            yield self._normalise(images), labels

    def _load(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        # [N, H, W, 3] in memory, seen as [N, 3, H, W], is channels_last already.
        images = torch.from_numpy(self.dataset.train_images[np.sort(indices)]).to(self.device).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.dataset.train_labels[np.sort(indices)]).to(self.device)

    def _normalise(self, images: Tensor) -> Tensor:
        mean = torch.tensor(self.dataset.mean, device=self.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.dataset.std, device=self.device).view(1, 3, 1, 1) * 255
        return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def crop(images: Tensor, padding: int) -> Tensor:
    """Each of [N, C, H, W] shifted at random by up to `padding` pixels both ways, zeros (black) outside."""
    count, _, height, width = images.shape
    padded = pad(images, (padding,) * 4)
    top, left = torch.randint(2 * padding + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    picked = padded[torch.arange(count, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def random_flip(images: Tensor) -> Tensor:
    """Each of [N, C, H, W] mirrored left to right with probability 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)
