#!/usr/bin/env python3
"""What only a GPU can tell, in three parts of some minutes each: `make gpu`, or without a .venv of ours

    python benchmarks/gpu.py tests
    python benchmarks/gpu.py steps
    python benchmarks/gpu.py search --snakemake --config 'dataset={archive: cifar-10-python.tar.gz}'

tests: `pytest -m gpu`. steps: time, kernels and busy share of steps and epochs beside the plain formulation; what determinism
costs; memory; torch.compile. search: the search of config.yaml and the training of what it derived, by snakemake, which gets
all arguments after --snakemake.

A part stops after --minutes and goes on when it is called again; what was had for the same code and GPU is not had anew. The
folder --out gets figures.tsv, and page.md, which says what held: send us both.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import pandas as pd
import psutil
import torch
import yaml
from figures import EACH, FAILED, HELD, LEFT_OUT, PARTS, Figures, TimeIsUp, complete, held, limited
from gpu_steps import Bench, all_measurements, steps
from steps import CONFIG

from fbnet.device import choose_device, usable_gpus
from fbnet.errors import InputError
from fbnet.latency import Target, read_header
from fbnet.latency.machine import describe
from fbnet.provenance import file_hash
from fbnet.runtime import run, write_text
from fbnet.space import read_space

ROOT = Path(__file__).parents[1]
CODE = {  # what a part's figures depend on
    "tests": ("workflow", "tests", "benchmarks/outcomes.py", "config.yaml"),
    "steps": (
        *("workflow/scripts/fbnet", "config.yaml"),
        *(f"benchmarks/{name}.py" for name in ("gpu_steps", "steps", "plain", "epoch")),
    ),
    "search": ("workflow", "Snakefile", "config.yaml"),
}
EXPECTED_SEARCH = "19 to 29 minutes"
STOPS_S = 60  # within which a stopped search has saved its state


# The tests


def tests(figures: Figures, options: Sequence[str], minutes: float) -> None:
    """Run pytest with these options until each test has a row, also one that ends the whole process."""
    begun, running = 0, None
    outcomes = {"passed": HELD, "failed": FAILED, "skipped": LEFT_OUT}
    try:
        with limited(minutes):
            while True:
                with _pytest(figures, options) as (process, lines):
                    for line in lines:
                        said = json.loads(line)
                        if said["outcome"] == "begun":
                            begun, running = begun + 1, said["test"]
                            continue
                        row = {"what": running, "value": said["seconds"], "unit": "s", "held": outcomes[said["outcome"]]}
                        figures.add("tests", [row | {"note": said["note"]}])
                        running = None
                    code = process.wait()
                if running is None:
                    break
                figures.add("tests", [{"what": running, "held": FAILED, "note": f"ended the whole process, with code {code}"}])
                running = None
    except TimeIsUp:
        if begun == 1:
            figures.add("tests", [{"what": running, "held": LEFT_OUT, "note": f"not done in {minutes:g} minutes"}])
        complete(figures, "tests", "the time was up before all tests had run")
        return
    if code not in (0, 1, 5):  # all passed, some failed, none was left to run
        raise InputError(f"pytest ended with code {code}, for a reason that it says above")
    complete(figures, "tests", "")


@contextmanager
def _pytest(figures: Figures, options: Sequence[str]) -> Iterator[tuple[subprocess.Popen, Iterator[str]]]:
    """pytest on what has no row yet, and the lines of `outcomes`; on leaving, it and all that it has started are ended."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "pytest", "-p", "outcomes", f"--outcomes={writing}", *options]
    done = [row["what"] for row in figures.of("tests")]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "FBNET_TESTS_DONE": json.dumps(done)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[writing], start_new_session=True)
    os.close(writing)
    try:
        with os.fdopen(reading, encoding="utf-8") as lines:
            yield process, lines
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# The search


def search(figures: Figures, command: Sequence[str], results: Path, minutes: float) -> None:
    """Run the workflow until its time is up, then let it save its state; rows of all that its results tell so far."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        with limited(minutes):
            code = process.wait()
    except TimeIsUp:
        code = None
    finally:
        _end(process)
    figures.add("search", search_rows(results))
    if code:
        raise InputError(f"snakemake ended with code {code}, for a reason that it says above")
    complete(figures, "search", "the time was up before its end, and all was saved" if code is None else "")


def _end(process: subprocess.Popen) -> None:
    """Ask snakemake to begin nothing more, and its jobs to save and end. The shells between live, and tell how those end."""
    with suppress(psutil.Error):
        for job in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if any("workflow/scripts" in word for word in job.cmdline()[:2]):
                    job.terminate()
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOPS_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def search_rows(results: Path) -> list[dict]:
    """What the results of a search and of a training tell, also where they are not finished."""
    rows = []
    for name, folder in {"search": results / "search/fbnet", "training": results / "training/fbnet/seed_0"}.items():
        history = _history(folder)
        for epoch, phase, took, rate in history[["epoch", "phase", "seconds", "images_per_s"]].itertuples(index=False):
            rows.append(
                {"what": f"{EACH}{epoch} of the {name}, {phase}", "value": took, "unit": "s", "note": f"{rate:.0f} images/s"}
            )
        for phase, some in history.groupby("phase", sort=False):
            note = f"{some.seconds.min():.3g} to {some.seconds.max():.3g} s; {some.images_per_s.median():.0f} images/s"
            rows.append(
                {"what": f"{name}: epoch, {phase}", "value": some.seconds.median(), "unit": "s", "n": len(some), "note": note}
            )
        if len(history):
            note = f"{history.epoch.nunique()} epochs" + (f"; expected about {EXPECTED_SEARCH} on an H100" * (name == "search"))
            rows.append({"what": f"{name}: in all", "value": history.seconds.sum() / 60, "unit": "minutes", "note": note})
        tested = history[history.phase == "test"]
        if len(tested):
            rows.append({"what": "training: top-1 on the test set", "value": 100 * tested.top1.iloc[-1], "unit": "%", "n": 1})
    architectures, validation = results / "architectures/fbnet.tsv", results / "latency/cpu.validation.tsv"
    if architectures.exists():
        found = pd.read_csv(architectures, sep="\t", comment="#").iloc[0]
        rows.append(
            {"what": "derived architecture: predicted latency", "value": found.latency_us / 1e3, "unit": "ms", "note": found.ops}
        )
    if validation.exists():
        header = read_header(validation)
        error, most = float(header["mean_error"]), CONFIG["validation"]["error"]
        row = {"what": "latency table: MAPE", "value": 100 * error, "unit": "%", "n": header["networks"]}
        rows.append(row | {"note": header["result"]} | held(error <= most))
    return rows


def _history(folder: Path) -> pd.DataFrame:
    """Rows of a history, of a checkpoint where there is none yet, or none at all."""
    if (folder / "history.tsv").exists():
        return pd.read_csv(folder / "history.tsv", sep="\t")
    if (folder / "checkpoint.pt").exists():
        return pd.DataFrame(torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)["state"]["history"])
    return pd.DataFrame(columns=["epoch", "phase", "seconds", "images_per_s", "top1"])


# All of it


def code_of(part: str) -> str:
    """A short hash of the files that a part's figures depend on."""
    found = hashlib.sha256()
    for path in sorted(path for name in CODE[part] for path in [ROOT / name, *(ROOT / name).rglob("*")]):
        if path.suffix in (".py", ".yaml", ".smk") or path.name == "Snakefile":
            found.update(f"{path.relative_to(ROOT)} {file_hash(path)}\n".encode())
    return found.hexdigest()[:12]


def main(arguments: argparse.Namespace) -> None:
    if not usable_gpus():
        raise InputError("there is no GPU here that PyTorch finds, and nothing else is measured by this")
    device = choose_device(0) if arguments.part == "steps" else None  # the other parts start programs, and these take a GPU
    about = {key: value for key, value in describe(Target(device="cuda")).items() if key not in ("gpu", "host", "governor")}
    figures = Figures(arguments.out, {part: code_of(part) for part in PARTS}, about)
    if arguments.part == "tests":
        tests(figures, ["-m", "gpu"], arguments.minutes)
    elif arguments.part == "steps":
        bench = Bench(read_space("fbnet_cifar"), device)
        steps(figures, all_measurements(bench, figures, (192, 256, 1000), 128), arguments.minutes)
    else:
        results = arguments.out.resolve() / "search"
        write_text(results / "config.yaml", yaml.safe_dump({"results": str(results)}))
        targets = [results / "training/fbnet/seed_0/network.pt", results / "latency/cpu.validation.tsv"]
        command = [sys.executable, "-m", "snakemake", *map(str, targets), "--cores", "8", "--resources", "gpu=1"]
        command += ["--configfile", str(results / "config.yaml"), *arguments.snakemake]
        search(figures, command, results, arguments.minutes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--minutes", type=float, default=9, help="after which it stops")
    parser.add_argument("--out", type=Path, default=ROOT / "results/gpu", help="folder for the figures, the page and the search")
    parser.add_argument("--snakemake", nargs=argparse.REMAINDER, default=[], help="search: what follows is for snakemake")
    run(parser, main)
