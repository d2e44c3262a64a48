"""A dataset on disk: a folder with four NumPy arrays, and `dataset.json`, written last, that describes and seals them."""

import json
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fbnet.errors import InputError
from fbnet.provenance import file_hash
from fbnet.runtime import naming

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
COUNTED = 60_000  # images: their mean is known to a thousandth, and millions would take longer than to read them
AT_ONCE = 2**24  # bytes of images; to count them takes eight times as much memory
FILES = (*(f"{name}.npy" for name in ARRAYS), "dataset.json")


@dataclass(frozen=True)
class Dataset:
    """uint8 images [N, H, W, 3] (mapped from disk), int64 labels [N], class names, mean and std per channel in [0, 1].

    Networks take `resolution` pixels of an image each way, which may be less than it has.
    """

    name: str
    classes: tuple[str, ...]
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def workplace(folder: Path) -> Path:
    """Where the arrays of a dataset are made, in its folder and so on its disk, until they are whole."""
    return Path(folder) / ".preparing"


@contextmanager
def writing(folder: Path, name: str, classes: list[str], source: dict) -> Iterator[dict[str, Path]]:
    """Paths to write the four arrays to (by name in ARRAYS); when done they are sealed, and nothing else is left in any case.

    Raises InputError for arrays that do not fit each other, OSError (ENOSPC) where the disk is full.
    """
    made = workplace(folder)
    shutil.rmtree(made, ignore_errors=True)  # of a killed run
    made.mkdir(parents=True)
    try:
        with naming(made):
            yield {array: made / f"{array}.npy" for array in ARRAYS}
            seal(made, folder, name, classes, source)
    finally:
        shutil.rmtree(made)


def seal(made: Path, folder: Path, name: str, classes: list[str], source: dict, resolution: int | None = None) -> None:
    """Check the four arrays in `made`, describe them, and move all into `folder`, the description last.

    `source` says where the data came from; `resolution`, what networks take of the images, if not all. Raises InputError for
    arrays that do not fit each other.
    """
    arrays = {array: made / f"{array}.npy" for array in ARRAYS}
    loaded = {array: np.load(path, mmap_mode="r", allow_pickle=False) for array, path in arrays.items()}
    for split in ("train", "test"):
        _check(split, loaded[f"{split}_images"], loaded[f"{split}_labels"], len(classes))
    mean, std = _statistics(loaded["train_images"])
    size = loaded["train_images"].shape[1]
    description = {
        "name": name,
        "classes": classes,
        "train": len(loaded["train_labels"]),
        "test": len(loaded["test_labels"]),
        "size": size,
        "resolution": resolution or size,
        "mean": mean,
        "std": std,
        "source": source,
        "sha256": {array: file_hash(path) for array, path in arrays.items()},
    }
    (made / FILES[-1]).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    for file in FILES:
        with open(made / file, "rb") as written:
            os.fsync(written.fileno())
        (made / file).replace(Path(folder) / file)


def read_dataset(folder: Path, resolution: int | None = None) -> Dataset:
    """Open a dataset, and verify its arrays against their seal.

    Raises InputError if one is missing or changed, or if the images are not for networks of this resolution.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        for name, digest in description["sha256"].items():
            if file_hash(folder / f"{name}.npy") != digest:
                raise InputError(f"the dataset's file {folder / name}.npy has changed since it was made: delete {folder}")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
        fields = {key: description[key] for key in ("name", "classes", "resolution", "mean", "std")}
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"there is no whole dataset in {folder} ({error}): delete the folder and prepare it again") from None
    found = description["resolution"]
    if resolution not in (None, found):
        raise InputError(
            f"the dataset {folder} has images of {found} pixels, but the search space takes {resolution}: prepare it again for "
            f"this space"
        )
    return Dataset(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}, **arrays)


def mapped_anew(images: np.ndarray) -> np.ndarray:
    """The same array: one that is mapped from disk as a whole, once more.

    What is read through a mapping counts as memory of the process as long as that lasts, which some schedulers hold against it.
    """
    whole = isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap)
    return np.load(images.filename, mmap_mode="r", allow_pickle=False) if whole else images


def _check(split: str, images: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"the {split} images are {images.dtype} {list(images.shape)}, but must be uint8 [N, H, W, 3]")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1] or not len(labels):
        raise InputError(f"the {split} split has {len(images)} images, but labels {labels.dtype} {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"the {split} labels run from {labels.min()} to {labels.max()}, but there are {classes} classes")


def _statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of all pixels, in [0, 1], from a histogram: exact, in one pass over the disk.

    Of a set with more than twice COUNTED images every second, third, ... counts.
    """
    step, at_once = max(len(images) // COUNTED, 1), max(AT_ONCE // images[0].nbytes, 1)
    histogram = np.zeros((3, 256))
    for start in range(0, len(images), step * at_once):
        part = mapped_anew(images)[start : start + step * at_once : step]
        histogram += [np.bincount(part[..., channel].ravel(), minlength=256) for channel in range(3)]
    levels = np.arange(256) / 255
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt(np.maximum(weights @ levels**2 - mean**2, 0))
    return [round(float(value), 6) for value in mean], [round(max(float(value), 1e-3), 6) for value in std]
