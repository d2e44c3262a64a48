"""A folder of images: train/ and test/, a folder for each class in both."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fbnet.data.dataset import writing
from fbnet.data.survey import image_classes
from fbnet.errors import InputError
from fbnet.runtime import Progress


def prepare_image_folder(out: Path, folder: Path, resolution: int) -> None:
    """Images in class folders under train/ and test/, scaled and centre-cropped to resolution². Raises InputError."""
    splits = {name: _image_files(folder / name) for name in ("train", "test")}
    classes = sorted(splits["train"])
    if sorted(splits["test"]) != classes:
        odd = sorted(set(splits["test"]) ^ set(classes))
        raise InputError(f"dataset.folder {folder}: train and test must have the same class folders; one lacks {', '.join(odd)}")
    with writing(out, "image_folder", classes, {"folder": str(folder)}) as paths:
        for split, by_class in splits.items():
            files = [(file, label) for label, name in enumerate(classes) for file in by_class[name]]
            shape = (len(files), resolution, resolution, 3)
            images = np.lib.format.open_memmap(paths[f"{split}_images"], mode="w+", dtype=np.uint8, shape=shape)
            for index, (file, _) in enumerate(Progress(files, desc=split, unit="image")):
                images[index] = _fit(file, resolution)
            images.flush()
            np.save(paths[f"{split}_labels"], np.array([label for _, label in files], dtype=np.int64))


def _image_files(folder: Path) -> dict[str, list[Path]]:
    by_class = {}
    for name in image_classes(folder):
        known = Image.registered_extensions()
        by_class[name] = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in known)
        if not by_class[name]:
            raise InputError(f"dataset.folder: the class folder {folder / name} holds no image")
    return by_class


def _fit(file: Path, resolution: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (resolution, resolution), Image.Resampling.BILINEAR)
            return np.asarray(fitted)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"dataset.folder: {file} is no readable image ({error})") from None
