"""Measure how long cells take on a device."""

import gc
import os
import platform
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fbnet.blocks import build
from fbnet.errors import InputError
from fbnet.latency import KEY
from fbnet.space import Cell

WARM_UP_ROUNDS = 5


def measure(cells: Iterable[Cell], device: str, threads: int, runs: int, rounds: Callable = iter) -> pd.DataFrame:
    """Latency of cells at batch 1, eval mode, no autograd: a row a cell with median `latency_us`, `iqr_us` and `runs`.

    Each of `runs` rounds calls every distinct (operator, shape) once, in a new random order: a slow moment of the machine
    is shared out, and a cell finds the caches as its predecessor left them, as it does inside a network. `rounds` wraps
    the range of rounds, for a progress bar. Raises InputError for a device or thread count that is not there.
    """
    cells = list(cells)
    _check(device, threads)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            tasks = {cell.build_key: _task(cell, device) for cell in cells}
            samples = {key: [] for key in tasks}
            order = list(tasks)
            shuffle = random.Random(0).shuffle
            gc.disable()  # a collection in the middle of a call would be charged to that cell
            # perf_counter_ns around one call: torch.utils.benchmark times a cell many times in a row, from warm caches.
            for number in rounds(range(WARM_UP_ROUNDS + runs)):
                shuffle(order)
                for key in order:
                    block, x = tasks[key]
                    synchronize()
                    start = time.perf_counter_ns()
                    block(x)
                    synchronize()
                    if number >= WARM_UP_ROUNDS:
                        samples[key].append((time.perf_counter_ns() - start) / 1000)
    finally:
        gc.enable()
        torch.set_num_threads(threads_before)

    rows = []
    for cell in cells:
        low, median, high = np.percentile(samples[cell.build_key], [25, 50, 75])
        rows.append(
            {column: getattr(cell, column) for column in KEY} | {"latency_us": median, "iqr_us": high - low, "runs": runs}
        )
    return pd.DataFrame(rows)


def _check(device: str, threads: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("latency: device is 'cuda', but PyTorch finds no GPU here: choose device 'cpu' or another machine")
    cores = os.cpu_count() or 1
    if threads > cores:
        raise InputError(f"latency: threads is {threads}, but this machine has {cores} cores: choose at most {cores}")


def _task(cell: Cell, device: str):
    return build(cell).eval().to(device), torch.randn(1, cell.c_in, cell.height, cell.width, device=device)


def conditions(device: str, threads: int) -> dict[str, str]:
    """What a table's header says of the measurement: device, threads, versions, date."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_model()
    return {
        "device": f"{device} ({name})",
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": str(threads),
        "batch": "1",
        "versions": f"torch {torch.__version__}, python {platform.python_version()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
