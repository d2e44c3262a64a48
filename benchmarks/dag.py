#!/usr/bin/env python3
"""What Snakemake itself takes with many searches: the plan of all, and the call that finds nothing to do.

The finished searches are copies of one that really ran, taken over by `snakemake --touch`.

    python benchmarks/dag.py
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import yaml

from fbnet.latency.machine import cpu_model

ROOT = Path(__file__).parents[1]
RUNS = 5
CONFIG = {
    "dataset": {"name": "digits"},
    "space": "tiny",
    "search": {"epochs": 2, "warmup_epochs": 1, "batch_size": 64},
    "validation": {"networks": 4, "runs": 3},
}


def snakemake(folder: Path, *options: str) -> tuple[float, str]:
    """The seconds that a call takes, and what it says. Raises CalledProcessError."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *options],
        **{"cwd": folder, "check": True, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )
    return time.perf_counter() - start, done.stdout


def configure(folder: Path, count: int) -> list[str]:
    """Write a configuration of so many searches, and return their names."""
    searches = {f"search_{number:03}": {"seed": number} for number in range(count)}
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"searches": searches}), encoding="utf-8")
    return list(searches)


def report(what: str, seconds: list[float]) -> None:
    print(f"{what}: median {median(seconds):.1f} s, {min(seconds):.1f} to {max(seconds):.1f} s, n = {len(seconds)}", flush=True)


def main(folder: Path) -> None:
    for name in ("Snakefile", "workflow", "profiles"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)

    [one] = configure(folder, 1)
    snakemake(folder)
    results = folder / "results"
    files = [path for path in results.rglob("*") if path.is_file() and one in str(path)]
    names = configure(folder, 50)
    for path in files:
        for name in names[1:]:
            other = Path(str(path).replace(one, name))
            other.parent.mkdir(exist_ok=True)
            shutil.copy2(path, other)
    snakemake(folder, "--touch")
    calls = [snakemake(folder) for _ in range(RUNS)]
    if any("Nothing to be done" not in said for _, said in calls):
        raise RuntimeError(f"there was something to be done: {calls[0][1]}")
    report(f"nothing to do, {len(names)} finished searches", [seconds for seconds, _ in calls])

    for count in (50, 500):
        configure(folder, count)
        shutil.rmtree(results, ignore_errors=True)
        shutil.rmtree(folder / ".snakemake", ignore_errors=True)
        calls = [snakemake(folder, "--dry-run", "--quiet") for _ in range(RUNS)]
        report(f"the plan of {count} new searches", [seconds for seconds, _ in calls])
        calls = [snakemake(folder, "all", "make_report", "--dry-run", "--quiet") for _ in range(RUNS)]
        report(f"the plan of {count} new searches with their evidence", [seconds for seconds, _ in calls])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{cpu_model()}, {os.cpu_count()} cores, Snakemake {version('snakemake')}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
