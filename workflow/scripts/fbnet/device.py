"""Where a program computes."""

import os

import torch

from fbnet.runtime import log


def choose_device(threads: int) -> torch.device:
    """The first visible GPU, or the CPU with so many threads (0: one for each core, and never more); said in the log."""
    if torch.cuda.is_available():
        log.info("Computing on the GPU %s.", torch.cuda.get_device_name())
        return torch.device("cuda", 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(threads or cores, cores))  # more threads than cores are slower than one
    log.info("PyTorch finds no GPU: computing on the CPU with %d threads.", torch.get_num_threads())
    return torch.device("cpu")
