"""Batches for training: small sets live on the device, others stream; crop, flip and normalisation there, a batch at a time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fbnet.data import augmentation
from fbnet.data.dataset import Dataset, mapped_anew
from fbnet.memory import free_bytes

BN_IMAGES = 2048  # enough for the statistics of a batch norm to settle, and a few seconds at most
RESIDENT_SHARE = 0.25  # of the device's free memory that the images may take, and of the host's; larger sets stream
AHEAD = 4  # batches that are read from disk before they are wanted, each by a thread of its own


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
    """Whether the device has room for these images, and the host, through which they go."""
    return images.nbytes <= RESIDENT_SHARE * min(map(free_bytes, (device, torch.device("cpu"))))


class Batches:
    """Those of a dataset's training images that `indices` names, as batches on a device.

    `resident`: the images lie there as uint8; otherwise threads read them ahead from disk. Both give the same batches. `part`
    is the share of each training batch that this process gets, where several share the work.
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
        self.size, self.has_margin = dataset.resolution, dataset.resolution < dataset.train_images.shape[1]
        mean, std = (torch.tensor(values, device=device).repeat(self.size) * 255 for values in (dataset.mean, dataset.std))
        self.scale, self.shift = 1 / std, -mean / std
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
            yield from self._streamed([self.indices[chosen] for chosen in batches.numpy()])

    def _streamed(self, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels by their numbers, on the device. Threads read them: processes need shared memory, which may lack."""
        reading: deque[Future] = deque()
        with ThreadPoolExecutor(AHEAD) as readers:
            for chosen in batches:
                reading.append(readers.submit(self._read, chosen))
                if len(reading) > AHEAD:
                    yield self._sent(reading.popleft())
            while reading:
                yield self._sent(reading.popleft())

    def _read(self, chosen: np.ndarray) -> tuple[Tensor, ...]:
        read = self.rows[chosen]
        return tuple(tensor.pin_memory() for tensor in read) if self.device.type == "cuda" else read

    def _sent(self, reading: Future) -> tuple[Tensor, ...]:
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in reading.result())

    def augmented(
        self,
        images: Tensor,
        crop_padding: int,
        flip: bool,
        crop: str = "padded",
        least_area: float = 0.08,
        jitter: float = 0.0,
        erasing: float = 0.0,
    ) -> Tensor:
        """uint8 [n, H, W, 3] → float [n, 3, size, size] in channels_last: changed at random, then normalised.

        `crop` is padded, resized, or auto: resized where there is more of an image than networks take. Draws from torch's
        global generator, for the whole batch, of which `images` is this process's part.
        """
        draw = partial(self._draws, images.device)
        if crop == "resized" or (crop == "auto" and self.has_margin):
            side = images.shape[1]
            boxes = augmentation.rectangles(draw(augmentation.DRAWS), side, side, (least_area, 1.0), augmentation.CROP_RATIO)
            [mirrored] = draw(1) < 0.5
            images = augmentation.resized(images, boxes, mirrored & flip, self.size)
        else:
            draws = draw(3)
            top, left = (draws[:2] * (2 * crop_padding + 1)).long()
            images = augmentation.cropped(self._middle(images), crop_padding, top, left, (draws[2] < 0.5) & flip)
        if jitter:
            order = np.random.default_rng(torch.initial_seed()).permutation(3)
            images = augmentation.jittered(images.float(), 1 + jitter * (2 * draw(3) - 1), order.tolist())
        x = self._scaled(images)
        if erasing:
            boxes = augmentation.rectangles(
                draw(augmentation.DRAWS), self.size, self.size - 1, augmentation.ERASED_AREA, augmentation.ERASED_RATIO
            )
            x = augmentation.erased(x, boxes, draw(1)[0] < erasing)
        return x.permute(0, 3, 1, 2)

    def _draws(self, device: torch.device, count: int) -> Tensor:
        """So many numbers in [0, 1) for each image of a batch, of which this process has its part."""
        return torch.rand(count, self.batch_size, device=device)[:, self.part]

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
        """uint8 [n, H, W, 3] → the middle as float [n, 3, size, size] in channels_last, as the dataset's mean and std say."""
        return self._scaled(self._middle(images)).permute(0, 3, 1, 2)

    def _middle(self, images: Tensor) -> Tensor:
        return augmentation.centred(images, self.size).contiguous() if self.has_margin else images

    def _scaled(self, images: Tensor) -> Tensor:
        """[n, size, size, 3] in 0–255 → float of the same shape."""
        return images.flatten(2).float().mul_(self.scale).add_(self.shift).view(images.shape)

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
        return torch.from_numpy(mapped_anew(self.images)[indices]), torch.from_numpy(self.labels[indices])
