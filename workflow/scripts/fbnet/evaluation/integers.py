"""An exported network in 8-bit integers, and what that does to its accuracy."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from fbnet.data.augmentation import centred
from fbnet.data.dataset import Dataset
from fbnet.latency import quantise
from fbnet.runtime import log, replacing

INT8 = ".int8.onnx"
CALIBRATION_IMAGES = 512  # training images, evenly spaced, over which the ranges of activations are taken
_BATCH = 64


def write_int8(source: Path, out: Path, dataset: Dataset) -> str:
    """Write an exported ONNX file in int8; in words, what is right of the test images before and after."""
    count = len(dataset.train_labels)
    chosen = np.linspace(0, count - 1, min(count, CALIBRATION_IMAGES)).round().astype(int)
    log.info("Quantising to int8, over %d training images.", len(chosen))
    with replacing(out) as (path,):
        quantise(source, path, list(_preprocessed(dataset, dataset.train_images[chosen])))
        before, after = (_top1(file, dataset) for file in (source, path))
    return (
        f"{out.name}: top-1 {after:.2%} on the {len(dataset.test_labels)} test images, in float32 {before:.2%}; calibrated on "
        f"{len(chosen)} training images"
    )


def _preprocessed(dataset: Dataset, images: np.ndarray) -> Iterator[np.ndarray]:
    """The middle of uint8 [N, H, W, 3] as float32 [n, 3, size, size], a batch at a time."""
    mean, std = (np.array(values, np.float32) for values in (dataset.mean, dataset.std))
    for start in range(0, len(images), _BATCH):
        batch = (centred(images[start : start + _BATCH], dataset.resolution) / np.float32(255) - mean) / std
        yield np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


def _top1(path: Path, dataset: Dataset) -> float:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = [session.run(None, {"images": batch})[0] for batch in _preprocessed(dataset, dataset.test_images)]
    return float((np.concatenate(logits).argmax(1) == dataset.test_labels).mean())
