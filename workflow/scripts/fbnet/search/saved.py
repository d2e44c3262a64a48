"""A trained supernet on disk."""

from pathlib import Path

import torch

from fbnet.errors import InputError
from fbnet.training.checkpoint import BROKEN


def read_supernet(path: Path) -> dict:
    """A trained supernet as train_supernet wrote it: `weights`, `theta`, `space`, `classes`, and where it came from.

    Raises InputError if the file is something else.
    """
    try:
        supernet = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not {"weights", "theta", "space", "classes"} <= supernet.keys():
            raise KeyError("theta")
    except BROKEN as error:
        raise InputError(f"{path} is no supernet that train_supernet wrote ({type(error).__name__}): train it again") from None
    return supernet
