"""One image of a file as people look at it."""

import warnings

import numpy as np
from PIL import Image, ImageOps

DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of 16 bits a pixel, which it would clip to 8


def fitted(file: str, size: int) -> np.ndarray:
    """An image upright, scaled and centre-cropped, as uint8 [size, size, 3]. Raises whatever its decoder does."""
    with warnings.catch_warnings(action="ignore"), Image.open(file) as image:  # what cannot be used is an error
        image.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
        image = ImageOps.exif_transpose(image)
        if image.mode in DEEP:
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError("its pixels have 32 bits: convert it to 8 or 16")
        return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR))
