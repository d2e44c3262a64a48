"""Networks as a training run left them (network.pt), read again and put in order."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from fbnet.errors import InputError
from fbnet.provenance import file_hash
from fbnet.training.checkpoint import BROKEN

KEYS = {"weights", "ops", "validation_top1", "data_sha256", "epochs", "entrants"}  # the last two since there are races


def read_trained(path: Path) -> dict:
    """A network.pt: `name`, `space`, `ops`, `classes`, `weights` (state dict), accuracies, and provenance. Raises InputError."""
    try:
        run = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(run, dict) or not run.keys() >= KEYS:
            raise KeyError("weights")
    except BROKEN as error:
        raise InputError(f"{path} is no network that train_architecture wrote ({type(error).__name__}): train it again") from None
    return run


def nth_best(paths: Sequence[Path], place: int) -> dict:
    """The network at this place, from 1, in validation accuracy, with the `sha256` of its file. Raises InputError."""
    runs = by_validation(paths)
    if not 1 <= place <= len(runs):
        raise InputError(f"place {place} is not one of the {len(runs)} networks: {', '.join(map(str, paths))}")
    path, run = list(runs.items())[place - 1]
    return run | {"sha256": file_hash(path)}


def by_validation(paths: Iterable[Path]) -> dict[Path, dict]:
    """Networks by their files, the best in validation accuracy first; the earlier path where two are equal. Raises InputError."""
    runs = {path: read_trained(path) for path in paths}
    return dict(sorted(runs.items(), key=lambda item: -item[1]["validation_top1"]))
