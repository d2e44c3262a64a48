"""What this process may use of the machine: a container or a job may have less memory and fewer CPUs than there are."""

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Of a control group, version 2 and 1: what it may have, what it has, and the files in that which the kernel drops when it must.
_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use at a time: those that it may run on, or fewer by the quota of a control group."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(there, *_quotas(root), there), 1)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still have by the limits of its control groups and its job; None where there is no limit."""
    free = [*_free_in_groups(root), *_free_in_job(root)]
    return max(min(free), 0) if free else None


def _quotas(root: Path) -> Iterator[int]:
    for group in _groups("cpu", root):
        quota = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            yield math.ceil(int(quota[0]) / int(quota[1]))


def _free_in_groups(root: Path) -> Iterator[int]:
    for group in _groups("memory", root):
        for limit, usage, droppable in _MEMORY:
            most, used, stat = _words(group / limit), _words(group / usage), _words(group / "memory.stat")
            if used and most and most != ["max"]:
                dropped = int(stat[stat.index(droppable) + 1]) if droppable in stat else 0
                yield int(most[0]) - int(used[0]) + dropped


def _free_in_job(root: Path) -> Iterator[int]:
    """By what SLURM says of a job, which it may enforce without a control group, and by `ulimit -v`, as other schedulers do."""
    pages = _words(root / "proc/self/statm") or ["0", "0"]
    size, resident = (int(count) * resource.getpagesize() for count in pages[:2])
    megabytes = _of_slurm("MEM_PER_NODE") or _of_slurm("MEM_PER_CPU") * _of_slurm("CPUS_ON_NODE")
    if megabytes:  # 0: all that the node has
        yield megabytes * 2**20 - resident
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit - size


def _of_slurm(name: str) -> int:
    value = os.environ.get(f"SLURM_{name}", "")
    return int(value) if value.isdecimal() else 0


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the control groups that count for this process: its own and those above it, as far as they are mounted here."""
    own: dict[str, str] = {}  # paths by controller; of version 2 by ""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        top, place = mount.split()[3:5]
        kind, *_, options = system.split()
        version_2 = kind == "cgroup2" and "" in own
        if version_2 or (kind == "cgroup" and controller in options.split(",") and controller in own):
            path, place = PurePosixPath(own["" if version_2 else controller]), root / place.lstrip("/")
            # In a container the path may be the host's, of which nothing is mounted but this group, or a part that we are not in.
            inner = path.relative_to(top).parts if path.is_relative_to(top) and ".." not in path.parts else ()
            yield from (place.joinpath(*inner[:depth]) for depth in range(len(inner) + 1))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux, or this group has no such limit
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
