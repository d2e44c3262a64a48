"""Images of many files in one array on disk: a shard at a time, by several processes, going on where it was stopped."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fbnet.data.photograph import fitted
from fbnet.errors import InputError, Stopped
from fbnet.runtime import Progress, StopRequest, naming

IMAGES = 128  # of a shard: a few seconds at most, which is what a stop costs
DATA = 128  # bytes before the images in NumPy's file, of any number of images


class Shard(NamedTuple):
    """Some files in a row: the number of the first, and a digest of all that their pixels depend on."""

    start: int
    files: tuple[str, ...]
    key: str


class Shards:
    """An array uint8 [N, size, size, 3] in `path` (.npy), made of N files; what is done is noted in a file beside it.

    `made_by`: whatever else the pixels depend on. A shard that was done before, of files that have not changed since, is kept.
    """

    def __init__(self, path: Path, files: Sequence[str], size: int, made_by: str):
        self.path, self.count, self.size = path, len(files), size
        self.bytes_per_image = size * size * 3
        parts = ((start, tuple(files[start : start + IMAGES])) for start in range(0, len(files), IMAGES))
        self.shards = [Shard(start, part, _key(f"{made_by} {size} {start}", part)) for start, part in parts]
        self.notes = path.with_suffix(".done")
        self.faults: dict[int, str] = {}

    def fill(self, processes: int, stop: StopRequest) -> None:
        """Read all files; `faults` says why some cannot be read, by number.

        Raises Stopped after a signal, InputError where a process was killed, OSError where the disk has no room.
        """
        self.path.touch()
        kept = self._kept()
        with self.path.open("r+b") as file:
            _reserve(file.fileno(), self._place(self.count), self.path)
        for shard in self.shards:
            self._note(shard, kept.get(shard.key, []))
        left = [shard for shard in self.shards if shard.key not in kept]
        jobs = {shard: (self.path, self._place(shard.start), shard.files, self.size) for shard in left}
        done = self.count - sum(len(shard.files) for shard in left)
        with (
            Progress(total=self.count, initial=done, desc=self.path.stem, unit="image") as bar,
            self.notes.open("a", encoding="utf-8") as notes,
        ):
            for shard, faults in _all(jobs, min(processes, len(jobs))):
                notes.write("\n" + json.dumps([shard.key, faults]))  # not after half a line of a killed run
                notes.flush()
                self._note(shard, faults)
                bar.update(len(shard.files))
                if stop.signal:
                    raise Stopped(
                        f"Stopped by {stop.signal} after {bar.n} of {self.count} images of {self.path.stem}; they are kept, and "
                        f"the next call goes on from there."
                    )

    def close(self) -> np.ndarray:
        """Put images from the end into the places of files that cannot be read, and make it an array; the file of each image."""
        count = self.count - len(self.faults)
        order = np.arange(count)
        holes = [number for number in sorted(self.faults) if number < count]
        order[holes] = [number for number in range(count, self.count) if number not in self.faults]
        with self.path.open("r+b") as file:
            shape = (count, self.size, self.size, 3)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            if file.tell() != DATA:
                raise OSError(f"NumPy's header of {self.path} has {file.tell()} bytes, not {DATA}")
            for hole in holes:
                file.seek(self._place(order[hole]))
                image = file.read(self.bytes_per_image)
                file.seek(self._place(hole))
                file.write(image)
            file.truncate(self._place(count))
        return order

    def _place(self, number: int) -> int:
        """Where the image of this number begins."""
        return DATA + int(number) * self.bytes_per_image

    def _note(self, shard: Shard, faults: list) -> None:
        self.faults |= {shard.start + number: why for number, why in faults}

    def _kept(self) -> dict[str, list]:
        """The faults of shards that are done, by key, as far as the array on disk reaches."""
        noted, size = {}, self.path.stat().st_size
        with contextlib.suppress(FileNotFoundError):
            for line in self.notes.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last one, where it was stopped
                    key, faults = json.loads(line)
                    noted[key] = faults
        whole = [shard.key for shard in self.shards if self._place(shard.start + len(shard.files)) <= size]
        return {key: noted[key] for key in whole if key in noted}


def _key(made_by: str, files: Sequence[str]) -> str:
    digest = hashlib.sha256(made_by.encode())
    for name in files:
        try:
            state = os.stat(name)
            changed = f"{state.st_size} {state.st_mtime_ns}"
        except OSError:  # a link to nowhere: what reads it will say so
            changed = ""
        digest.update(f"{name}\0{changed}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _reserve(file: int, size: int, path: Path) -> None:
    """Take the room on the disk, so that a full one is known now. Raises OSError."""
    before = os.fstat(file).st_size
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        os.truncate(file, size)
    except OSError as error:
        os.truncate(file, before)
        raise OSError(error.errno, f"{os.strerror(error.errno)}: the images take {size / 1e9:.1f} GB", str(path)) from None


def _all(jobs: dict[Shard, tuple], processes: int) -> Iterator[tuple[Shard, list]]:
    """The faults of each shard as it is done."""
    if processes < 2:
        for shard, job in jobs.items():
            yield shard, _fill(*job)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        futures = {pool.submit(_fill, *job): shard for shard, job in jobs.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenExecutor:
            raise InputError(
                "a process that reads images was killed, most likely for want of memory: give this job more memory or fewer "
                "threads; the next call goes on from here"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _fill(path: Path, place: int, files: Sequence[str], size: int) -> list[tuple[int, str]]:
    """Write these images to a place in a file, black where one cannot be read; the numbers of those, and why."""
    images, faults = np.zeros((len(files), size, size, 3), np.uint8), []
    for index, name in enumerate(files):
        try:
            images[index] = fitted(name, size)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise what they like
            faults.append((index, (str(error) or type(error).__name__).splitlines()[0]))
    with naming(path), path.open("r+b") as file:
        file.seek(place)
        file.write(images.data)
        file.flush()
        os.fsync(file.fileno())
    return faults


def _end_with_parent() -> None:
    """Of a process of the pool: whoever started it decides when it ends, whatever a terminal or a cluster sends to all."""
    for number in StopRequest.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
