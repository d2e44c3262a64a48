"""What training leaves on disk: checkpoints, only used by the run that wrote them, and the trained supernet."""

import hashlib
import json
import pickle
from pathlib import Path

import torch

from fbnet.runtime import log, replacing

BROKEN = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError)


def fingerprint(**inputs) -> str:
    """A digest of everything that a run depends on (JSON values): equal inputs, equal fingerprint."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def previous(path: Path) -> Path:
    """Where the checkpoint before this one is kept."""
    return path.with_stem(f"{path.stem}.previous")


def save(path: Path, run: str, state: dict) -> None:
    """Write the state of the run with this fingerprint; the checkpoint before it is kept too."""
    with replacing(path) as (temporary,):
        torch.save({"fingerprint": run, "state": state}, temporary)
        if path.exists():
            path.replace(previous(path))


def load(path: Path, run: str) -> dict | None:
    """The last state of the run with this fingerprint; None, said in the log, if there is none.

    A file that is broken, or of another run, is left unused, and the one before it taken. What a killed run had half written
    is removed.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)
    for candidate in filter(Path.exists, (path, previous(path))):
        try:
            checkpoint = torch.load(candidate, map_location="cpu", weights_only=True)
            found, state = checkpoint["fingerprint"], checkpoint["state"]
        except BROKEN as error:
            log.warning("The checkpoint %s is broken (%s) and left unused.", candidate, type(error).__name__)
            continue
        if found == run:
            return state
        log.info("The checkpoint %s is of other settings, code, table or data, and left unused.", candidate)
    return None


def delete(path: Path) -> None:
    """Remove a finished run's checkpoints."""
    for candidate in (path, previous(path)):
        candidate.unlink(missing_ok=True)


def made_by_another(result: Path, inputs: dict) -> bool:
    """Whether a file that torch.save wrote holds these inputs: whoever we waited for has done the same."""
    try:
        found = torch.load(result, map_location="cpu", weights_only=True, mmap=True)
    except BROKEN:
        return False
    return isinstance(found, dict) and all(found.get(key) == value for key, value in inputs.items())
