"""What a container or a job leaves of a machine, by made-up trees of /proc and /sys."""

import os
import resource

import psutil
import pytest
import torch

from fbnet import limits
from fbnet.device import choose_device
from fbnet.errors import InputError
from fbnet.latency import Target
from fbnet.latency.torch_engine import check
from fbnet.memory import free_bytes

MiB = 2**20
V1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs  rw,mode=755\n" + "".join(
    f"32 31 0:30 {{top}} /sys/fs/cgroup/{name} rw,nosuid shared:9 - cgroup cgroup rw,{name}\n"
    for name in ("cpu,cpuacct", "memory")
)
V2 = "24 31 0:30 {top} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
OF_V1, OF_V2 = "5:cpu,cpuacct:{path}\n4:memory:{path}\n1:name=systemd:/\n", "0::{path}\n"


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)


def tree(root, version, path, top="/"):
    """A made-up /proc whose process is in the control group `path`, and whose mounts show the groups from `top` on."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text((OF_V1 if version == 1 else OF_V2).format(path=path), encoding="utf-8")
    (proc / "mountinfo").write_text((V1 if version == 1 else V2).format(top=top), encoding="utf-8")


def group(root, version, path, cpu, memory=None, used=0, droppable=0):
    """A control group: `cpu` as (quota, period) in the words of its version, and `memory` as its limit."""
    files = {
        1: {
            "cpu,cpuacct": {"cpu.cfs_quota_us": cpu[0], "cpu.cfs_period_us": cpu[1]},
            "memory": {
                "memory.limit_in_bytes": memory,
                "memory.usage_in_bytes": used,
                "memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {droppable}\ntotal_active_file 5",
            },
        },
        2: {
            "": {
                "cpu.max": f"{cpu[0]} {cpu[1]}",
                "memory.max": memory,
                "memory.current": used,
                "memory.stat": f"anon 1\ninactive_anon 3\ninactive_file {droppable}\nactive_file 5",
            }
        },
    }[version]
    for controller, values in files.items():
        folder = root / "sys/fs/cgroup" / controller / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (folder / name).write_text(f"{value}\n", encoding="utf-8")


NO_CPU_LIMIT, NO_LIMIT = {1: (-1, 100_000), 2: ("max", 100_000)}, {1: 2**63 - 4096, 2: "max"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("path", "top", "own"),
    [
        ("/", "/", ""),  # a namespace of its own
        ("/docker/abc", "/docker/abc", ""),  # the host's path, of which this group is mounted
        ("/kubepods/pod1/abc", "/", ""),  # the host's path, of which nothing is there
        ("/../../abc", "/", ""),  # of another namespace
        ("/slurm/job_7", "/", "slurm/job_7"),  # on the host
    ],
)
def test_a_control_group_limits(tmp_path, version, path, top, own):
    tree(tmp_path, version, path, top)
    group(tmp_path, version, own, (150_000, 100_000), 900 * MiB, used=500 * MiB, droppable=100 * MiB)
    assert limits.cpus(tmp_path) == 2  # one and a half, rounded up
    assert limits.free_memory(tmp_path) == 500 * MiB


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_of_all_groups_above_counts(tmp_path, version):
    tree(tmp_path, version, "/batch/job/step")
    group(tmp_path, version, "", NO_CPU_LIMIT[version], NO_LIMIT[version], used=1)
    group(tmp_path, version, "batch", (300_000, 100_000), 4000 * MiB, used=3900 * MiB)
    group(tmp_path, version, "batch/job", (20_000, 50_000), 2000 * MiB, used=500 * MiB)
    group(tmp_path, version, "batch/job/step", NO_CPU_LIMIT[version], NO_LIMIT[version], used=1)
    group(tmp_path, version, "batch/other", (10_000, 100_000), 1, used=0)  # not ours
    assert limits.cpus(tmp_path) == 1
    assert limits.free_memory(tmp_path) == 100 * MiB
    group(tmp_path, version, "batch/job", (20_000, 50_000), 2000 * MiB, used=2000 * MiB + 4096)
    assert limits.free_memory(tmp_path) == 0


@pytest.mark.parametrize("version", [1, 2])
def test_where_nothing_is_limited_the_machine_counts(tmp_path, version):
    tree(tmp_path, version, "/")
    group(tmp_path, version, "", NO_CPU_LIMIT[version], NO_LIMIT[version], used=1)
    assert limits.cpus(tmp_path) == 64
    assert (limits.free_memory(tmp_path) or 2**63) > 2**62


def test_where_there_are_no_control_groups_the_machine_counts(tmp_path, monkeypatch):
    assert limits.cpus(tmp_path) == 64
    assert limits.free_memory(tmp_path) is None
    tree(tmp_path, 2, "/")  # of whose root no limit is told
    assert limits.cpus(tmp_path) == 64
    assert limits.free_memory(tmp_path) is None
    monkeypatch.delattr(os, "sched_getaffinity")  # as on a Mac
    assert limits.cpus(tmp_path) == os.cpu_count()


def test_a_machine_with_both_versions(tmp_path):
    """Whose second one has no controllers."""
    tree(tmp_path, 1, "/job")
    second = V2.format(top="/").replace("/cgroup rw", "/cgroup/unified rw")
    for name, more in (("cgroup", OF_V2.format(path="/job")), ("mountinfo", second)):
        with (tmp_path / "proc/self" / name).open("a", encoding="utf-8") as file:
            file.write(more)
    group(tmp_path, 1, "job", (400_000, 100_000), 300 * MiB, used=100 * MiB)
    (tmp_path / "sys/fs/cgroup/unified/job").mkdir(parents=True)
    assert limits.cpus(tmp_path) == 4
    assert limits.free_memory(tmp_path) == 200 * MiB


@pytest.mark.parametrize(
    ("said", "free"),
    [
        ({"MEM_PER_NODE": "2000"}, 1900 * MiB),
        ({"MEM_PER_CPU": "500", "CPUS_ON_NODE": "4"}, 1900 * MiB),
        ({"MEM_PER_NODE": "0"}, None),  # the whole node
        ({"MEM_PER_CPU": "500"}, None),
        ({"MEM_PER_NODE": "50"}, 0),
    ],
)
def test_a_job_limits(tmp_path, monkeypatch, said, free):
    tree(tmp_path, 2, "/")
    pages = 100 * MiB // resource.getpagesize()
    (tmp_path / "proc/self/statm").write_text(f"{3 * pages} {pages} 443 5 0 123 0\n", encoding="utf-8")
    for name, value in said.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert limits.free_memory(tmp_path) == free
    monkeypatch.setattr(resource, "getrlimit", lambda what: (400 * MiB, 400 * MiB))  # of addresses, of which 300 are taken
    assert limits.free_memory(tmp_path) == min(100 * MiB, 2**63 if free is None else free)


def test_the_least_of_machine_and_limits_is_free(monkeypatch):
    there = psutil.virtual_memory().total
    for allowed, free in ((3 * MiB, 3 * MiB), (None, None), (2 * there, None)):
        monkeypatch.setattr(limits, "free_memory", lambda allowed=allowed: allowed)
        found = free_bytes(torch.device("cpu"))
        assert found == free if free else 3 * MiB < found <= there


def test_more_threads_than_a_quota_are_not_taken(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(limits, "cpus", lambda: 2)
    try:
        for threads, gpus, taken in ((8, 0, 2), (0, 0, 2), (1, 0, 1), (8, 2, 1)):
            choose_device(threads, gpus)
            assert torch.get_num_threads() == taken
    finally:
        torch.set_num_threads(before)
    check(Target(threads=2))
    with pytest.raises(InputError, match="threads is 3, but at most 2 CPUs may be used here"):
        check(Target(threads=3))
    check(Target(threads=8, engine="command", command="time {model}", pattern="(?P<latency>.)"))
