"""Batches for training: small sets live on the device, others stream; crop, flip and normalisation there, a batch at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from fbnet.data.dataset import Dataset
from fbnet.memory import free_bytes

BN_IMAGES = 2048  # enough for the statistics of a batch norm to settle, and a few seconds at most
RESIDENT_SHARE = 0.25  # of the device's free memory that the images may take; larger sets stream
WORKERS = 2  # processes that read ahead where a set streams: they only copy bytes


def split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images with these labels in two disjoint random parts, `share` of them in the first.

    Both parts have the classes in the same shares, and each class that has two images.
    """
    counts = np.bincount(labels)
    first = _shared_out(counts, share)
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, at random within each
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    in_first = place < np.repeat(first, counts)
    return np.sort(order[in_first]), np.sort(order[~in_first])


def _shared_out(counts: np.ndarray, share: float) -> np.ndarray:
    """How many of each class go to the first part: `share` of them, rounded so that the sum is right; one stays on each side."""
    wanted = counts * share
    low = np.minimum(counts // 2, 1)
    high = counts - low
    first = np.clip(np.floor(wanted).astype(int), low, high)
    missing = int(np.clip(round(counts.sum() * share), low.sum(), high.sum())) - first.sum()
    step = int(np.sign(missing))
    for _ in range(abs(missing)):
        free = first < high if step > 0 else first > low
        first[np.argmax(np.where(free, step * (wanted - first), -np.inf))] += step
    return first


def may_reside(images: np.ndarray, device: torch.device) -> bool:
    """Whether the device has room for these images."""
    return images.nbytes <= RESIDENT_SHARE * free_bytes(device)


class Batches:
    """Those of a dataset's training images that `indices` names, as batches on a device.

    `resident`: the images lie there as uint8; otherwise worker processes read them ahead from disk. Both give the same
    batches. `part` is the share of each training batch that this process gets, where several share the work.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: np.ndarray,
        batch_size: int,
        device: torch.device,
        resident: bool = True,
        part: slice = slice(None),
    ):
        self.indices, self.batch_size, self.device, self.part = indices, batch_size, device, part
        size, repeat = dataset.train_images.shape[1], dataset.train_images.shape[2]
        mean, std = (torch.tensor(values, device=device).repeat(repeat) * 255 for values in (dataset.mean, dataset.std))
        self.scale, self.shift, self.size = 1 / std, -mean / std, size
        self.rows = Rows(dataset.train_images, dataset.train_labels)
        self.resident = [tensor.to(device) for tensor in self.rows[indices]] if resident else None

    def __len__(self) -> int:
        """Number of training batches: an incomplete last one is left out."""
        return len(self.indices) // self.batch_size

    def training(self, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of each batch, from number `start` on, in an order that follows from the seed.

        uint8 [n, H, W, 3] for `augmented`, labels [n].
        """
        order = torch.randperm(len(self.indices), generator=torch.Generator().manual_seed(seed))
        batches = order[: len(self) * self.batch_size].view(len(self), -1)[start:, self.part]
        if self.resident:
            for chosen in batches.contiguous().to(self.device):
                yield tuple(tensor.index_select(0, chosen) for tensor in self.resident)
        else:
            on_gpu = self.device.type == "cuda"
            loader = DataLoader(
                self.rows,
                batch_size=None,
                sampler=[self.indices[chosen] for chosen in batches.numpy()],
                num_workers=WORKERS,
                prefetch_factor=4,
                pin_memory=on_gpu,
            )
            for images, labels in loader:
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def augmented(self, images: Tensor, crop_padding: int, flip: bool) -> Tensor:
        """uint8 [n, H, W, 3] → float [n, 3, H, W] in channels_last: random crop and flip, then normalised.

        Draws from torch's global generator, for the whole batch, of which `images` is this process's part.
        """
        draws = torch.rand(3, self.batch_size, device=self.device)[:, self.part]
        top, left = (draws[:2] * (2 * crop_padding + 1)).long()
        mirrored = (draws[2] < 0.5) & flip
        return self.normalised(cropped(images, crop_padding, top, left, mirrored))

    def plain(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in fixed order, normalised only; the last batch may be smaller."""
        for start in range(0, len(self.indices), self.batch_size):
            yield self._batch(np.arange(start, min(start + self.batch_size, len(self.indices))))

    def for_norms(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches of some BN_IMAGES images in all, normalised only, each evenly spaced over a set that may be sorted."""
        size = min(self.batch_size, len(self.indices))
        count = min(-(-BN_IMAGES // size), len(self.indices) // size)
        spaced = np.linspace(0, len(self.indices) - 1, count * size).round().astype(int)
        for number in range(count):
            yield self._batch(spaced[number::count])

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] → float [n, 3, H, W] in channels_last, as the dataset's mean and std say."""
        rows = images.flatten(2).float().mul_(self.scale).add_(self.shift)
        return rows.view(images.shape).permute(0, 3, 1, 2)

    def _batch(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        if self.resident:
            chosen = torch.from_numpy(chosen).to(self.device)
            images, labels = (tensor.index_select(0, chosen) for tensor in self.resident)
        else:
            images, labels = (tensor.to(self.device) for tensor in self.rows[self.indices[chosen]])
        return self.normalised(images), labels


class Rows:
    """Images [N, H, W, 3] and labels [N] on disk, read by an array of indices."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __getitem__(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.images[indices]), torch.from_numpy(self.labels[indices])


def cropped(images: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """uint8 [n, H, W, 3] with zeros (black) around them, each cut at its `top` and `left` [n], and mirrored where it says so."""
    count, height, width, channels = images.shape
    padded = pad(images, (0, 0, *(padding,) * 4)).view(count * (height + 2 * padding), -1)
    numbers = torch.arange(max(count, height, width * channels), device=images.device)
    rows = (numbers[:count] * (height + 2 * padding) + top)[:, None] + numbers[:height]
    columns, channel = numbers[: width * channels] // channels, numbers[: width * channels] % channels
    columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    picked = (columns * channels + channel)[:, None].expand(-1, height, -1)
    return padded.index_select(0, rows.flatten()).view(count, height, -1).gather(2, picked).view(images.shape)
