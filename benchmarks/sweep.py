#!/usr/bin/env python3
"""A sweep of 8 tiny searches on a SLURM of two nodes: what a submission costs, how busy the nodes are, what groups save.

make .venv/slurm
python tests/cluster.py python benchmarks/sweep.py
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("workflow/scripts", "tests"))

import yaml

from cluster import FOLDER, NODES, Cluster
from fbnet.latency.machine import cpu_model

ROOT = Path(__file__).parents[1]
SEARCHES = [f"search_{number}" for number in range(8)]
CONFIG = {
    "dataset": {"name": "digits"},
    "space": "tiny",
    "latency": {"cpu": {"runs": 5}},
    "search": {"epochs": 25, "warmup_epochs": 1, "batch_size": 64},
    "searches": {name: {"seed": number} for number, name in enumerate(SEARCHES)},
    "validation": {"networks": 4, "runs": 3},
    "threads": 1,
}
GROUPED = ("profile_latency", "plot_latency", "validate_latency", "sample_architecture", "export_modeldef", "export_model")
ON_SLURM = ("--workflow-profile", "profiles/slurm", "--cores", "2", "--default-resources", "runtime=10", "mem_mb=1000")
STAMP = r"\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]\n"


def run(folder: Path, *options: str) -> tuple[float, str]:
    """Run the sweep from nothing; the seconds that it takes, and what Snakemake says."""
    for name in ("Snakefile", "workflow", "profiles"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(sys.prefix) / "slurm")}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        **{"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )
    if done.returncode:
        sys.exit(done.stdout)
    return time.perf_counter() - start, done.stdout


def words(folder: Path, search: str) -> tuple[float, float]:
    """When a training said its first and its last word."""
    log = folder / f"results/logs/train_supernet/{search}.log"
    day = datetime.fromtimestamp(log.stat().st_mtime).date()
    times = [datetime.fromisoformat(f"{day} {line[:8]}").timestamp() for line in log.read_text(encoding="utf-8").splitlines()]
    return times[0], times[-1]


def stamps(text: str, what: str) -> list[float]:
    """The times before the lines of Snakemake that begin like this."""
    return [datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y").timestamp() for stamp in re.findall(STAMP + re.escape(what), text)]


def busy(jobs: list[dict]) -> list[int]:
    """For each second from the first start to the last end, the number of nodes with a job."""
    seconds = range(min(job["start_time"] for job in jobs), max(job["end_time"] for job in jobs))
    return [len({job["nodes"] for job in jobs if job["start_time"] <= now < job["end_time"]}) for now in seconds]


def report(what: str, toy: Cluster, folder: Path, seconds: float, said: str) -> None:
    jobs = toy.jobs(folder)
    trainings = sorted((job for job in jobs if "train_supernet" in job["comment"]), key=lambda job: job["end_time"])
    spoken = sorted((words(folder, search) for search in SEARCHES), key=lambda times: times[1])
    pairs = list(zip(trainings, spoken, strict=True))
    finished = stamps(said, "Finished jobid: ")
    print(f"\n{what}: {len(jobs)} submissions, {seconds:.0f} s in all")
    for name, values in {
        "from the start of a job to the first word of training": [first - job["start_time"] for job, (first, _) in pairs],
        "from its last word to the end of the job": [job["end_time"] - last for job, (_, last) in pairs],
        "until Snakemake notices": [min(t for t in finished if t >= job["end_time"] - 1) - job["end_time"] for job in trainings],
    }.items():
        print(f"  {name}: mean {mean(values):.1f} s, {min(values):.0f} to {max(values):.0f} s, n = {len(values)}")
    for name, some in {"trainings": trainings, "all jobs": jobs}.items():
        nodes = busy(some)
        both, none = nodes.count(len(NODES)) / len(nodes), nodes.count(0) / len(nodes)
        print(f"  {name}: both nodes busy {both:.0%} of {len(nodes)} s, none {none:.0%}")


def main(toy: Cluster, folder: Path) -> None:
    (folder / "here").mkdir()
    seconds, said = run(folder / "here", "--cores", "2", "--resources", "gpu=2")
    begun = stamps(said, "localrule train_supernet:")
    first = [words(folder / "here", search)[0] for search in SEARCHES]
    waits = [word - max(start for start in begun if start <= word) for word in first]  # two that start at once share a stamp
    print(f"without SLURM, two trainings at once: {seconds:.0f} s in all")
    print(f"  from the start of a job to the first word of training: mean {mean(waits):.1f} s, n = {len(waits)}", flush=True)
    for what, options in {
        "in groups": (),
        "without groups": ("--groups", *(f"{rule}={rule}_alone" for rule in GROUPED)),
    }.items():
        work = folder / what.replace(" ", "_")
        work.mkdir()
        report(what, toy, work, *run(work, *ON_SLURM, *options))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if FOLDER not in os.environ:
        sys.exit("Run it on a cluster: python tests/cluster.py python benchmarks/sweep.py")
    print(f"{cpu_model()}, {os.cpu_count()} cores, Snakemake {version('snakemake')}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as temporary:
        main(Cluster(Path(os.environ[FOLDER])), Path(temporary))
