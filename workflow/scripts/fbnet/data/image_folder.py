"""A folder of images: train/ and test/, a folder for each class in both."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fbnet.data.dataset import writing
from fbnet.data.survey import SPLITS, image_classes
from fbnet.errors import InputError
from fbnet.runtime import Progress, log

FEW = 10  # images of a class in training from which on it is not warned of
NAMED = 20  # files in one sentence
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of 16 bits a pixel, which it would clip to 8


def prepare_image_folder(out: Path, folder: Path, resolution: int, broken: str = "refuse") -> None:
    """Images in class folders under train/ and test/, upright, scaled and centre-cropped to resolution².

    `broken` says what is done with files that cannot be read: refuse, or skip. Raises InputError, with all that is wrong.
    """
    classes = image_classes(folder)
    splits = {split: _files(classes, split) for split in SPLITS}
    faults: list[str] = []
    taken: dict[str, list[int]] = {}
    with writing(out, "image_folder", list(classes), source := {"folder": str(folder)}) as paths:
        for split, files in splits.items():
            shape = (len(files), resolution, resolution, 3)
            images = np.lib.format.open_memmap(paths[f"{split}_images"], mode="w+", dtype=np.uint8, shape=shape)
            labels = taken[split] = []
            for file, label in Progress(files, desc=split, unit="image"):
                try:
                    images[len(labels)] = _fit(file, resolution)
                    labels.append(label)
                except MemoryError:
                    raise
                except Exception as error:  # decoders raise what they like
                    faults.append(f"{file} ({(str(error) or type(error).__name__).splitlines()[0]})")
            images.flush()
            _shorten(paths[f"{split}_images"], (len(labels), *shape[1:]))
            np.save(paths[f"{split}_labels"], np.array(labels, dtype=np.int64))
        _judge(faults, broken)
        for split, labels in taken.items():
            _tell_counts(split, list(classes), labels)
        source["skipped"] = faults


def _files(classes: dict[str, dict[str, list[Path]]], split: str) -> list[tuple[Path, int]]:
    """The image files of a split, with their labels; what is left out is said in the log. Raises InputError for empty classes."""
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files, left_out, empty, deep = [], Counter(), [], []
    for label, (name, folders) in enumerate(classes.items()):
        before, others = len(files), Counter()
        for folder in folders[split]:
            for place, inner, names in os.walk(folder):
                others["hidden"] += sum(one.startswith(".") for one in [*names, *inner])
                inner[:] = sorted(one for one in inner if not one.startswith("."))
                deep += [name] if inner else []
                for file in (Path(place, one) for one in sorted(names) if not one.startswith(".")):
                    if file.suffix.lower() in known:
                        files.append((file, label))
                    else:
                        others[file.suffix.lower() or "no suffix"] += 1
        if len(files) == before:
            empty.append(f"{split}/{name} holds no image{_listed(others)}")
        left_out += others
    if empty:
        raise InputError("dataset.folder: " + "; ".join(empty))
    if +left_out:
        log.warning("%s: files that are no images we can read were left out%s.", split, _listed(left_out))
    if deep:
        log.warning("%s: %s has folders of its own; what is in them counts to it.", split, ", ".join(dict.fromkeys(deep)))
    return files


def _listed(kinds: Counter) -> str:
    """A count by kind of file, in words."""
    return ": " + ", ".join(f"{count} × {kind}" for kind, count in (+kinds).most_common()) if +kinds else ""


def _fit(file: Path, resolution: int) -> np.ndarray:
    """An image as uint8 [resolution, resolution, 3]."""
    with Image.open(file) as image:
        image.draft("RGB", (2 * resolution, 2 * resolution))  # a large JPEG is decoded at a fraction of its size
        image = ImageOps.exif_transpose(image)
        if image.mode in DEEP:
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError("its pixels have 32 bits: convert it to 8 or 16")
        return np.asarray(ImageOps.fit(image.convert("RGB"), (resolution, resolution), Image.Resampling.BILINEAR))


def _judge(faults: Sequence[str], broken: str) -> None:
    """Raise InputError with the files that cannot be read, or say in the log that they are left out."""
    if not faults:
        return
    more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    named = ", ".join(faults[:NAMED]) + more
    if broken == "refuse":
        raise InputError(
            f"dataset.folder: unreadable images ({len(faults)}): {named}: replace or delete them, or set dataset.broken to skip"
        )
    log.warning("Unreadable images were left out (%d): %s.", len(faults), named)


def _shorten(path: Path, shape: tuple[int, ...]) -> None:
    """Have an array on disk end after so many images; NumPy's header has room for any number of them."""
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        before = np.lib.format.read_array_header_1_0(file)[0]
        if before == shape:
            return
        data = file.tell()
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if file.tell() != data:
            raise OSError(f"the header of {path} has changed its length")
        file.truncate(data + int(np.prod(shape)))


def _tell_counts(split: str, classes: list[str], labels: Sequence[int]) -> None:
    """Say in the log how many images each class has. Raises InputError for one that has none left."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    named = dict(zip(classes, counts, strict=True))
    if none := [name for name, count in named.items() if not count]:
        raise InputError(f"dataset.folder: no image of {', '.join(none[:NAMED])} in {split}/ can be read")
    log.info("%s: images by class: %s.", split, ", ".join(f"{name} {count}" for name, count in list(named.items())[:NAMED]))
    if few := [name for name, count in named.items() if split == "train" and count < FEW]:
        log.warning("%s: fewer than %d images of %s: hardly anything can be learned of them.", split, FEW, ", ".join(few[:NAMED]))
