#!/usr/bin/env python3
"""What only a GPU can tell, in three parts of some minutes each: `make gpu`, or without a .venv of ours

    python benchmarks/gpu.py tests
    python benchmarks/gpu.py steps
    python benchmarks/gpu.py search --snakemake --config 'dataset={archive: cifar-10-python.tar.gz}'

tests: `pytest -m gpu`. steps: time, kernels and busy share of steps and epochs beside the plain formulation; what determinism
costs; memory; torch.compile. search: the search of config.yaml and the training of the network found, by snakemake, which gets
all arguments after --snakemake.

A part stops after --minutes and goes on when it is called again; what was had for the same code and GPU is not had anew. The
folder --out gets figures.tsv, and page.md, which says what held: send us both.
"""

import argparse
import dataclasses
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import pandas as pd
import psutil
import torch
import yaml
from epoch import our_epoch
from figures import COMPLETE, EACH, FAILED, HELD, LEFT_OUT, PARTS, Figures
from plain import PlainTraining
from steps import CONFIG, a_search, a_training, random_images, stepping, wait
from supernet_step import peak_rss
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from fbnet.device import choose_device, usable_gpus
from fbnet.errors import InputError
from fbnet.latency import read_header
from fbnet.loop import Loop
from fbnet.machine import describe
from fbnet.memory import WORKSPACE, is_out_of_memory
from fbnet.mixed import computed_in
from fbnet.provenance import file_hash
from fbnet.runtime import log, run, write_text
from fbnet.space import SearchSpace, read_space
from fbnet.target import Target

ROOT = Path(__file__).parents[1]
CODE = {  # what a part's figures depend on
    "tests": ("workflow", "tests", "benchmarks/outcomes.py", "config.yaml"),
    "steps": (
        *("workflow/scripts/fbnet", "workflow/spaces", "config.yaml"),
        *(f"benchmarks/{name}.py" for name in ("gpu", "steps", "plain", "epoch")),
    ),
    "search": ("workflow", "Snakefile", "config.yaml"),
}
KERNELS = {  # at most in a step, and at most so many operations dispatched, which a test counts
    "soft, weights": 8000,
    "single path, weights": 1000,
    "training one network": 900,
}
BUSY = 0.9  # share of a step's time in which the GPU computes, at least
# What we expect of an H100, estimated and not measured.
EXPECTED = {
    ("soft, weights: step", 192): "50 to 75 ms",
    ("single path, weights: step", 192): "11 to 18 ms",
    ("training one network: step", 128): "8 to 11 ms",
}
EXPECTED_SEARCH = "19 to 29 minutes"
STOPS_S = 60  # within which a stopped search has saved its state


class TimeIsUp(BaseException):
    """Not an Exception: whoever goes on after errors, as a search that cannot be compiled does, must not go on after this."""


@contextmanager
def limited(minutes: float) -> Iterator[None]:
    """Raises TimeIsUp within it after so many minutes."""

    def end(number, frame):
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def complete(figures: Figures, part: str, missing: str) -> None:
    """End a part, with a row and a sentence; `missing` says what, if anything."""
    figures.add(part, [{"what": COMPLETE, "value": "no" if missing else "yes", "note": missing}])
    log.info("%s: %s. See %s.", part, f"{missing}; call it again" if missing else "finished", figures.folder / "page.md")


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
        with os.fdopen(reading) as lines:
            yield process, lines
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# The steps


@dataclass(frozen=True)
class Bench:
    """On what, and how often, steps are measured: `images` training images, `rounds` of each time, runs of `steps`."""

    space: SearchSpace
    device: torch.device
    images: int = 50_000  # as in CIFAR-10
    rounds: int = 10
    steps: int = 30

    @cached_property
    def dataset(self):
        return random_images(self.images, self.space.resolution)

    def loop(self, kind: str, batch: int, **changes) -> tuple[Loop, str]:
        """What makes the steps of this kind, and the name of their phase."""
        sampling, _, phase = kind.partition(", ")
        if phase:
            changes |= {"sampling": sampling.replace(" ", "_")}
            return a_search(self.space, self.dataset, self.device, batch_size=batch, **changes), phase
        return a_training(self.space, self.dataset, self.device, batch_size=batch, **changes), "train"


class Measurement(NamedTuple):
    """Rows of figures that are had together, by a name with which all of theirs begin; `batch` is in images."""

    name: str
    batch: int
    rows: Callable[[], list[dict]]


def steps(figures: Figures, measurements: Sequence[Measurement], minutes: float) -> None:
    """Have the rows of each measurement that has none; one for which a whole call was too short is left out."""
    missing = [one for one in measurements if not figures.has("steps", one.name, one.batch)]
    had = 0
    try:
        with limited(minutes):
            for name, batch, rows in missing:
                log.info("%s, batch %d", name, batch)
                figures.add("steps", [{"batch": batch} | row for row in _rows_of(name, rows)])
                had += 1
                _clear(name)
    except TimeIsUp:
        if not had:
            row = {
                "what": missing[0].name,
                "batch": missing[0].batch,
                "held": LEFT_OUT,
                "note": f"not done in {minutes:g} minutes",
            }
            figures.add("steps", [row])
    left = [f"{one.name} at {one.batch}" for one in missing if not figures.has("steps", one.name, one.batch)]
    complete(figures, "steps", f"not yet measured: {', '.join(left)}" if left else "")


def _clear(name: str) -> None:
    """Let the next measurement begin on a GPU as it was, if that is still possible."""
    gc.collect()
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:
            raise InputError(f"after {name} this process can no longer use the GPU: call it again for what is left") from None


def _rows_of(name: str, rows: Callable[[], list[dict]]) -> list[dict]:
    """The rows, or the one that says why there are none."""
    try:
        return rows()
    except InputError as reason:
        return [{"what": name, "held": LEFT_OUT, "note": reason}]
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return [{"what": name, "held": LEFT_OUT, "note": "does not fit into the memory"}]
        log.exception("%s does not work here", name)
        return [{"what": name, "held": FAILED, "note": str(error).strip().partition("\n")[0]}]


def all_measurements(bench: Bench, figures: Figures, batches: Sequence[int], training: int) -> list[Measurement]:
    """Everything that the part is to have; what others are held against comes first, what may take longest last."""
    searched = [f"{sampling}, {phase}" for phase in ("weights", "theta") for sampling in ("soft", "single path")]
    sizes = [*((kind, batches[0]) for kind in ("soft, weights", "single path, weights")), ("training one network", training)]
    found = [Measurement("data type of the steps", training, partial(precision_rows, bench))]
    for batch in batches:
        found.append(Measurement("plain, weights", batch, partial(plain_rows, bench, batch)))
        found += [Measurement(kind, batch, partial(step_rows, bench, figures, kind, batch)) for kind in searched]
    kind = "training one network"
    found.append(Measurement(kind, training, partial(step_rows, bench, figures, kind, training)))
    found += [Measurement(f"{kind}, determinism", batch, partial(determinism_rows, bench, kind, batch)) for kind, batch in sizes]
    found += [Measurement(f"{kind}, memory", batch, partial(memory_rows, bench, kind, batch)) for kind, batch in sizes]
    compiled = partial(step_rows, bench, figures, "soft, weights", batches[0], compile=True)
    return [*found, Measurement("soft, weights, compiled", batches[0], compiled)]


def seconds(step: Callable[[], object], bench: Bench, warm_up: int = 5) -> list[float]:
    """Seconds of a step, each the mean of a round of five, after so many to warm up."""
    for _ in range(warm_up):
        step()
    found = []
    for _ in range(bench.rounds):
        wait(bench.device)
        start = time.perf_counter()
        for _ in range(5):
            step()
        wait(bench.device)
        found.append((time.perf_counter() - start) / 5)
    return found


def profile_rows(name: str, step: Callable[[], object], usual: float, device: torch.device) -> list[dict]:
    """Kernels of a step, and the share of its `usual` seconds in which they run, as the profiler sees them over five steps."""
    on_gpu, count = device.type == "cuda", 5
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        wait(device)
        start = time.perf_counter()
        for _ in range(count):
            step()
        wait(device)
        slowed = (time.perf_counter() - start) / count
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [event for event in profiler.events() if event.device_type == kind and not event.is_user_annotation]
    if not on_gpu:
        events = [event for event in events if not event.cpu_parent]
    kernels = sum(not event.name.startswith(("Memcpy", "Memset")) for event in events) / count
    if not kernels:
        return [{"what": f"{name}: kernels", "held": LEFT_OUT, "note": "the profiler sees none: it may lack permission"}]
    busy = sum(event.time_range.elapsed_us() for event in events) / 1e6 / count
    most = KERNELS.get(name)
    holds = _held(kernels <= most) | {"note": f"at most {most}"} if most else {}
    note = f"at least {BUSY:.0%}; {busy / slowed:.0%} under the profiler, which slows launches"
    return [
        {"what": f"{name}: kernels", "value": kernels, "unit": "a step", "n": count} | holds,
        {"what": f"{name}: busy", "value": 100 * busy / usual, "unit": "%", "n": count, "note": note}
        | _held(busy >= BUSY * usual),
    ]


def precision_rows(bench: Bench) -> list[dict]:
    with bench.loop("training one network", 8)[0].autocast():
        dtype = computed_in(torch.empty(0, device=bench.device))
    row = {"what": "data type of the steps", "value": str(dtype).removeprefix("torch.")}
    return [row if dtype == torch.bfloat16 else row | {"held": LEFT_OUT, "note": "bfloat16 is not to be had here"}]


def plain_rows(bench: Bench, batch: int) -> list[dict]:
    times = seconds(PlainTraining(bench.space, bench.dataset, batch, bench.device).step, bench)
    return [_time("plain, weights: step", times)]


def step_rows(bench: Bench, figures: Figures, kind: str, batch: int, **changes) -> list[dict]:
    """Time, kernels and busy share of a step, and the time of its whole phase."""
    name = f"{kind}, compiled" if changes else kind
    loop, phase = bench.loop(kind, batch, **changes)
    if changes and loop.forward is loop.supernet:
        raise InputError("torch.compile does not work here, for a reason that the log says")
    step = partial(next, stepping(loop, phase))
    times = seconds(step, bench)
    expected = EXPECTED.get((f"{name}: step", batch))
    rows = [_time(f"{name}: step", times) | ({"note": f"expected about {expected} on an H100"} if expected else {})]
    if plain := figures.value("steps", "plain, weights: step", batch):
        rows.append(
            {"what": f"{name}: times faster than the plain step of weights", "value": plain / 1e3 / median(times), "unit": "×"}
        )
    rows += profile_rows(name, step, median(times), bench.device)
    rate = our_epoch(loop, phase)
    images = len(loop.batches[phase]) * batch
    rows.append(
        {"what": f"{name}: epoch", "value": images / rate, "unit": "s", "n": 1, "note": f"{images} images, {rate:.0f} a second"}
    )
    return rows


def determinism_rows(bench: Bench, kind: str, batch: int) -> list[dict]:
    """What torch.backends.cudnn.deterministic costs a step, and whether two runs end alike with and without it."""
    name, before = f"{kind}, determinism", torch.backends.cudnn.deterministic
    rows, middle = [], {}
    try:
        step = partial(next, stepping(*bench.loop(kind, batch)))
        times = {False: [], True: []}
        for number in range(bench.rounds):
            for wanted, found in times.items():
                torch.backends.cudnn.deterministic = wanted
                found += seconds(step, dataclasses.replace(bench, rounds=1), warm_up=5 if number == 0 else 1)
        for wanted, found in times.items():
            torch.backends.cudnn.deterministic = wanted
            middle[wanted], how = median(found), "with it" if wanted else "without it"
            first, second = (_weights_after(bench, kind, batch) for _ in range(2))
            alike = all(torch.equal(value, other) for value, other in zip(first, second, strict=True))
            rows.append(_time(f"{name}: step {how}", found))
            says = _held(alike) if wanted else {"value": "yes" if alike else "no"}  # which nobody promises
            rows.append({"what": f"{name}: two runs end bit-equal {how}", "n": 2, "note": f"{bench.steps} steps each"} | says)
    finally:
        torch.backends.cudnn.deterministic = before
    return [*rows, {"what": f"{name}: what it costs", "value": 100 * (middle[True] / middle[False] - 1), "unit": "%"}]


def _weights_after(bench: Bench, kind: str, batch: int) -> list[torch.Tensor]:
    loop, phase = bench.loop(kind, batch)
    for _ in islice(stepping(loop, phase), bench.steps):
        pass
    return [value.clone() for module in loop.modules.values() for value in module.state_dict().values()]


def memory_rows(bench: Bench, kind: str, batch: int) -> list[dict]:
    """What an image adds to a step's peak, from two batch sizes, in units of what its forward pass keeps for the gradient."""
    less, more = (_peak(bench, kind, size) for size in (batch // 2, batch))
    loop, _ = bench.loop(kind, batch)
    with loop.autocast():
        kept = loop.bytes_per_image() / WORKSPACE
    an_image = (more - less) / (batch - batch // 2)
    share = {"value": an_image / kept, "unit": "×", "note": f"WORKSPACE in memory.py, {WORKSPACE}, is no less"}
    return [
        {"what": f"{kind}, memory: peak", "value": more / 1e9, "unit": "GB"},
        {"what": f"{kind}, memory: an image", "value": an_image / 1e6, "unit": "MB", "note": f"keeps {kept / 1e6:.3g} MB"},
        {"what": f"{kind}, memory: workspace"} | share | _held(an_image <= WORKSPACE * kept),
    ]


def _peak(bench: Bench, kind: str, batch: int) -> int:
    """Bytes that are in use at once during steps, all else in this process included."""
    gc.collect()
    loop, phase = bench.loop(kind, batch)
    running = stepping(loop, phase)
    next(running)  # draws, and makes the optimiser's state
    if kind.startswith("single path"):  # the path for which memory is estimated
        chosen = loop.supernet.logits().argmax(dim=1).tolist()
        loop.paths = [[chosen] * len(paths) for paths in loop.paths]
    _forget_peak(bench.device)
    for _ in range(3):
        next(running)
    return torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else peak_rss()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _time(what: str, times: Sequence[float]) -> dict:
    return {"what": what, "value": 1e3 * median(times), "unit": "ms", "n": len(times)}


def _held(holds: bool) -> dict[str, str]:
    return {"held": HELD if holds else FAILED}


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
            {"what": "network found: latency predicted", "value": found.latency_us / 1e3, "unit": "ms", "note": found.ops}
        )
    if validation.exists():
        header = read_header(validation)
        error, most = float(header["mean_error"]), CONFIG["validation"]["error"]
        row = {"what": "latency table: mean error", "value": 100 * error, "unit": "%", "n": header["networks"]}
        rows.append(row | {"note": header["result"]} | _held(error <= most))
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
