"""Where a program computes."""

import ctypes
import fcntl
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from fbnet.errors import InputError
from fbnet.runtime import log


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process has for itself: `lock` is an open file, and whoever keeps it open keeps the GPU."""

    index: int
    uuid: str
    lock: int


def choose_device(threads: int, gpus: int = 1) -> torch.device:
    """The first free GPU, or the CPU with so many threads (0: one for each core, and never more); said in the log.

    `gpus`: how many the whole program has, with a process on each; 0: it computes on the CPU, also where there is a GPU.
    Threads are those of all its processes together.
    """
    if gpus and torch.cuda.is_available():
        gpu = _only_gpu() if "RANK" in os.environ else take_gpus(1)[0].index
        log.info("Computing on the GPU %s.", torch.cuda.get_device_name(gpu))
        torch.cuda.set_device(gpu)
        return torch.device("cuda", gpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(min(threads or cores, cores) // max(gpus, 1), 1))  # more threads than cores are slower than one
    _keep_freed_memory()
    reason = "PyTorch finds no GPU" if gpus else "No GPU is wanted"
    log.info("%s: computing on the CPU with %d threads.", reason, torch.get_num_threads())
    return torch.device("cpu")


def _only_gpu() -> int:
    """Of a process among several: whoever started them has chosen."""
    return int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.device_count() > 1 else 0


def take_gpus(count: int) -> list[Gpu]:
    """So many GPUs that no other search uses, when there are; they are free again when the last process with a lock ends.

    Raises InputError if the machine has fewer.
    """
    names = {f"GPU-{torch.cuda.get_device_properties(index).uuid}": index for index in range(torch.cuda.device_count())}
    if len(names) < count:
        raise InputError(f"search.gpu is {count}, but PyTorch finds {len(names)} GPUs here: choose at most that")
    return [Gpu(names[name], name, lock) for name, lock in take(list(names), count).items()]


def take(names: Sequence[str], count: int) -> dict[str, int]:
    """Locks on `count` of these devices, all at once, as open files by name; waits, and says so, until so many are free."""
    said = False
    while True:
        held: dict[str, int] = {}
        for name in names:
            lock = _try_lock(Path(tempfile.gettempdir()) / f"fbnet-{name}.lock") if len(held) < count else None
            if lock is not None:
                held[name] = lock
        if len(held) == count:
            return held
        for lock in held.values():
            os.close(lock)
        if not said:
            log.info("Waiting: of %d devices, %d are free of other searches, and %d are wanted.", len(names), len(held), count)
            said = True
        time.sleep(1)


def _try_lock(path: Path) -> int | None:
    """An open file with a lock on it, or None where another process has it; the kernel unlocks it when its holders end."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody uses."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the next: asking the system each time takes a fifth of a step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
