"""One program at a time in a folder, also when Snakemake was killed, its job went on, and the next call starts it again."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fbnet.errors import Stopped
from fbnet.runtime import StopRequest, log

_POLL_S = 0.5


@contextmanager
def alone(folder: Path, stop: StopRequest) -> Iterator[bool]:
    """Keep others out of a folder, after waiting for whoever is in it; whether there was anybody to wait for.

    The lock is one of the file system, so that it goes with its process; the folder may go too. Raises Stopped after a signal
    while waiting.
    """
    waited = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a+", encoding="utf-8") as lock:
            while not _taken(lock):
                if not waited:
                    lock.seek(0)
                    log.warning(
                        "%s is in use (%s): waiting until that ends.", folder, lock.read().strip() or "by another process"
                    )
                waited = True
                if stop.signal:
                    raise Stopped(f"Stopped by {stop.signal} while waiting for {folder}.")
                time.sleep(_POLL_S)
            if not _is_there(lock, folder):
                continue
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}")
            lock.flush()
            yield waited
            return


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("This file system has no locks (%s): do not start the same program twice.", error)
    return True


def _is_there(lock: TextIO, folder: Path) -> bool:
    """Whether the folder still has this lock: who had it may have removed both."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / ".lock"))
    except FileNotFoundError:
        return False
