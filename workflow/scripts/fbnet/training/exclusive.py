"""One training at a time in a folder, also when Snakemake was killed, its job went on, and the next call starts it again."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fbnet.errors import Stopped
from fbnet.runtime import StopRequest, log
from fbnet.training.checkpoint import BROKEN

_POLL_S = 0.5


@contextmanager
def alone(folder: Path, stop: StopRequest) -> Iterator[bool]:
    """Keep others out of a folder, after waiting for whoever is in it; whether there was anybody to wait for.

    The lock is one of the file system, so that it goes with its process. Raises Stopped after a signal while waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as lock:
        waited = False
        while not _taken(lock):
            if not waited:
                lock.seek(0)
                log.warning("%s is in use (%s): waiting until that ends.", folder, lock.read().strip() or "by another process")
            waited = True
            if stop.signal:
                raise Stopped(f"Stopped by {stop.signal} while waiting for {folder}.")
            time.sleep(_POLL_S)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield waited


def made_by_another(result: Path, inputs: dict) -> bool:
    """Whether a file that torch.save wrote holds these inputs: whoever we waited for has done the same."""
    try:
        found = torch.load(result, map_location="cpu", weights_only=True, mmap=True)
    except BROKEN:
        return False
    return isinstance(found, dict) and all(found.get(key) == value for key, value in inputs.items())


def _taken(lock) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("This file system has no locks (%s): do not start the same training twice.", error)
    return True
