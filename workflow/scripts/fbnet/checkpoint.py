"""What training leaves on disk: checkpoints, only used by the run that wrote them, and the trained supernet."""

import hashlib
import json
import pickle
from pathlib import Path

import torch

from fbnet.errors import InputError
from fbnet.runtime import log, replacing

BROKEN = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError)


def fingerprint(**inputs) -> str:
    """A digest of everything that a run depends on (JSON values): equal inputs, equal fingerprint."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def save(path: Path, run: str, state: dict) -> None:
    """Write the state of the run with this fingerprint."""
    with replacing(path) as (temporary,):
        torch.save({"fingerprint": run, "state": state}, temporary)


def load(path: Path, run: str) -> dict | None:
    """The state of the run with this fingerprint; None, said in the log, if there is none or it cannot be read."""
    if not path.exists():
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found, state = checkpoint["fingerprint"], checkpoint["state"]
    except BROKEN as error:
        log.warning("The checkpoint %s is broken (%s) and left unused.", path, type(error).__name__)
        return None
    if found != run:
        log.info("The checkpoint %s is of other settings, code, table or data, and left unused.", path)
        return None
    return state


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
