"""Steps on a GPU: their time, kernels and busy share, what determinism costs, memory, compiling; as rows of figures."""

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from epoch import our_epoch
from figures import FAILED, LEFT_OUT, Figures, TimeIsUp, complete, held, limited
from plain import PlainTraining
from steps import SEARCHES, a_search, a_training, random_images, stepping, wait
from supernet_step import peak_rss
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from fbnet.errors import InputError
from fbnet.memory import WORKSPACE, is_out_of_memory
from fbnet.runtime import log
from fbnet.search.fused import computed_in
from fbnet.space import SearchSpace
from fbnet.training import Loop

KERNELS = {  # at most in a step, and at most so many operations dispatched, which a test counts
    "soft, weights": 8000,
    "single path, weights": 1200,
    "training one network": 900,
}
BUSY = 0.9  # share of a step's time in which the GPU computes, at least
# What we expect of an H100: where that is a single number, it was measured once, otherwise it is estimated.
EXPECTED = {
    ("soft, weights: step", 192): "59 ms",
    ("single path, weights: step", 192): "11 to 18 ms",
    ("training one network: step", 128): "6.4 ms",
}


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
        search, _, phase = kind.partition(", ")
        if phase:
            changes |= SEARCHES[search]
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
    """Everything that the part is to have; what others are compared with comes first, what may take longest last."""
    searched = [*(f"{search}, weights" for search in SEARCHES), "soft, theta", "single path, theta"]
    sizes = [*((kind, batches[0]) for kind in ("soft, weights", "single path, weights")), ("training one network", training)]

    def steps_at(batch: int) -> list[Measurement]:
        plain = Measurement("plain, weights", batch, partial(plain_rows, bench, batch))
        return [plain, *(Measurement(kind, batch, partial(step_rows, bench, figures, kind, batch)) for kind in searched)]

    kind = "training one network"
    found = [Measurement("data type of the steps", training, partial(precision_rows, bench)), *steps_at(batches[0])]
    found.append(Measurement(kind, training, partial(step_rows, bench, figures, kind, training)))
    found += [Measurement(f"{kind}, determinism", batch, partial(determinism_rows, bench, kind, batch)) for kind, batch in sizes]
    found += [Measurement(f"{kind}, memory", batch, partial(memory_rows, bench, kind, batch)) for kind, batch in sizes]
    for batch in batches[1:]:
        found += steps_at(batch)
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
    holds = held(kernels <= most) | {"note": f"at most {most}"} if most else {}
    note = f"at least {BUSY:.0%}; {busy / slowed:.0%} under the profiler, which slows launches"
    return [
        {"what": f"{name}: kernels", "value": kernels, "unit": "a step", "n": count} | holds,
        {"what": f"{name}: busy", "value": 100 * busy / usual, "unit": "%", "n": count, "note": note}
        | held(busy >= BUSY * usual),
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
    rate = our_epoch(loop, phase)  # first: each operator loads and chooses its kernels when it comes up first
    step = partial(next, stepping(loop, phase))
    times = seconds(step, bench)
    expected = EXPECTED.get((f"{name}: step", batch))
    rows = [_time(f"{name}: step", times) | ({"note": f"expected about {expected} on an H100"} if expected else {})]
    if plain := figures.value("steps", "plain, weights: step", batch):
        rows.append(
            {"what": f"{name}: times faster than the plain step of weights", "value": plain / 1e3 / median(times), "unit": "×"}
        )
    rows += profile_rows(name, step, median(times), bench.device)
    images = len(loop.batches[phase]) * batch
    rows.append(
        {
            "what": f"{name}: epoch",
            "value": images / rate,
            "unit": "s",
            "n": 1,
            "note": f"the first: {images} images, {rate:.0f} a second",
        }
    )
    return rows


def determinism_rows(bench: Bench, kind: str, batch: int) -> list[dict]:
    """What torch.backends.cudnn.deterministic costs a step, and whether two runs end alike with and without it."""
    name, before = f"{kind}, determinism", torch.backends.cudnn.deterministic
    rows, middle = [], {}
    try:
        times = {False: [], True: []}
        running = {wanted: partial(next, stepping(*bench.loop(kind, batch))) for wanted in times}  # each with graphs of its own
        for number in range(bench.rounds):
            for wanted, found in times.items():
                torch.backends.cudnn.deterministic = wanted
                found += seconds(running[wanted], dataclasses.replace(bench, rounds=1), warm_up=5 if number == 0 else 1)
        for wanted, found in times.items():
            torch.backends.cudnn.deterministic = wanted
            middle[wanted], how = median(found), "with it" if wanted else "without it"
            first, second = (_weights_after(bench, kind, batch) for _ in range(2))
            alike = all(torch.equal(value, other) for value, other in zip(first, second, strict=True))
            rows.append(_time(f"{name}: step {how}", found))
            says = held(alike) if wanted else {"value": "yes" if alike else "no"}  # which nobody promises
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
        {"what": f"{kind}, memory: workspace"} | share | held(an_image <= WORKSPACE * kept),
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
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _time(what: str, times: Sequence[float]) -> dict:
    return {"what": what, "value": 1e3 * median(times), "unit": "ms", "n": len(times)}
