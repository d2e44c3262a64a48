#!/usr/bin/env python3
"""A folder of many photographs, made up, is prepared, also when it is killed on the way: images/s, memory, and the same bytes."""

import argparse
import json
import platform
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import psutil
from PIL import Image

PROGRAM = Path(__file__).parents[1] / "workflow/scripts/download_cifar.py"


def make_class(folder: Path, each: int, size: tuple[int, int], number: int) -> None:
    """Photographs of one class, no two alike: noise at a twelfth of their size, enlarged. A tenth of them is for testing."""
    rng = np.random.default_rng(number)
    for half, count in (("train", each - each // 10), ("test", each // 10)):
        place = folder / half / f"{number:05d}"
        place.mkdir(parents=True)
        for index in range(count):
            coarse = rng.integers(0, 256, (max(size[1] // 12, 1), max(size[0] // 12, 1), 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=85)


def prepare(folder: Path, out: Path, resolution: int, processes: int, kill_after_s: float | None = None) -> tuple[float, int]:
    """Seconds that the program ran, to its end or until it was killed, and the most memory that its processes had, in bytes."""
    options = {"name": "image_folder", "folder": folder, "resolution": resolution, "threads": processes, "out": out}
    command = [sys.executable, str(PROGRAM), *(f"--{key}={value}" for key, value in options.items())]
    start, most = time.monotonic(), 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as program:
        while program.poll() is None:
            most = max(most, memory(psutil.Process(program.pid)))
            if kill_after_s and time.monotonic() - start > kill_after_s:
                program.kill()
            time.sleep(0.2)
    if program.returncode != (-9 if kill_after_s else 0):
        sys.exit(f"the program ended with {program.returncode}")
    return time.monotonic() - start, most


def memory(program: psutil.Process) -> int:
    """Of a process and its children, what they share counted once."""
    total = 0
    try:
        for process in (program, *program.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:  # one has just ended
        pass
    return total


def sealed(out: Path) -> dict:
    return json.loads((out / "dataset.json").read_text(encoding="utf-8"))["sha256"]


def main(arguments: argparse.Namespace) -> None:
    folder, resolution = arguments.work / "images", arguments.resolution
    each = arguments.images // arguments.classes
    if not folder.exists():
        with ProcessPoolExecutor(arguments.processes) as pool:
            list(pool.map(partial(make_class, folder, each, tuple(arguments.size)), range(arguments.classes), chunksize=4))
    count = each * arguments.classes
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, Pillow {PIL.__version__}")
    size = "×".join(map(str, arguments.size))
    print(f"n = {count} JPEGs of {size} in {arguments.classes} classes, for networks that take {resolution}×{resolution}")
    print("processes\tseconds\timages/s\tmost memory, MB\twhat happened")
    seals = []
    for processes in sorted({1, arguments.processes}):
        out = arguments.work / "whole"
        seconds, most = prepare(folder, out, resolution, processes)
        print(processes, f"{seconds:.0f}", f"{count / seconds:.0f}", f"{most / 1e6:.0f}", "nothing", sep="\t", flush=True)
        seals.append(sealed(out))
        shutil.rmtree(out)
    whole_s, out, generator = seconds, arguments.work / "killed", random.Random(arguments.seed)
    for _ in range(arguments.kills):
        after = generator.uniform(0.2, 0.5) * whole_s
        seconds, most = prepare(folder, out, resolution, arguments.processes, after)
        print(arguments.processes, f"{seconds:.0f}", "", f"{most / 1e6:.0f}", "killed (SIGKILL)", sep="\t", flush=True)
    seconds, most = prepare(folder, out, resolution, arguments.processes)
    print(arguments.processes, f"{seconds:.0f}", "", f"{most / 1e6:.0f}", "nothing: it went on", sep="\t", flush=True)
    seals.append(sealed(out))
    left = sorted(path.name for path in out.iterdir())
    print(f"all the same bytes: {all(seal == seals[0] for seal in seals)}; in the folder: {', '.join(left)}")
    shutil.rmtree(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the photographs, which stay there, and for results")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(160, 120), help="pixels of a photograph: width height")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    main(parser.parse_args())
