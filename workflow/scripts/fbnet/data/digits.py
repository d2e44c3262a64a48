"""scikit-learn's handwritten digits."""

from pathlib import Path

import numpy as np
from PIL import Image

from fbnet.data.dataset import writing


def prepare_digits(out: Path, resolution: int) -> None:
    """scikit-learn's handwritten digits (1797 of 8×8, real, no network), enlarged; a fifth of each class is the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.stack([_enlarge(image, resolution) for image in digits.images])
    split = train_test_split(images, digits.target.astype(np.int64), test_size=0.2, random_state=0, stratify=digits.target)
    with writing(out, "digits", [str(name) for name in digits.target_names], {"from": "sklearn.datasets.load_digits"}) as paths:
        for name, array in zip(("train_images", "test_images", "train_labels", "test_labels"), split, strict=True):
            np.save(paths[name], array)


def _enlarge(image: np.ndarray, resolution: int) -> np.ndarray:
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((resolution, resolution), Image.Resampling.BILINEAR).convert("RGB"))
