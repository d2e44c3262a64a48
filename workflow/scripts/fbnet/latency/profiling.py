"""Measure what each cell of a search space costs inside the networks of that space."""

import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from fbnet.device import keep_freed_memory
from fbnet.latency.drift import half_width, iqr, steady
from fbnet.latency.own_process import Remote
from fbnet.latency.table import KEY
from fbnet.latency.target import Target
from fbnet.latency.torch_engine import GraphEngine, TorchEngine, TorchProcesses, check
from fbnet.latency.visit import laps_and_whole, warm_twice, warm_us
from fbnet.network import size
from fbnet.space import Cell, SearchSpace, walk

SECONDS_AN_ENTRY = 0.2  # about, of those that differ: 0.1 to 0.3 on a core of a server, the more the larger the images
LEAST_RUNS = 10  # no cell is done before
NETWORKS_INSIDE = 4  # designs of networks in which cells are timed, in turns
MOST_NETWORKS = 160  # of these designs together, but for the first: that of a space which lists channels is large
NETWORKS_ALONE = 2  # designs of networks that `fit` learns from where cells are timed alone, in turns
LIGHT = (1.0, 0.85, 0.7)  # of the networks that make a design complete for `fit`: the share of layers that are as small as can be
CALLS = 3  # of a command for each cell and network: each runs it many times
WARM_UP_S = 1.0  # of running untimed first: clocks rise, compilers compile, memory is had
ENDS = ("stem", "head")  # layers that all networks have
_ROUNDS_BETWEEN_LOOKS = 4


class Measurement(NamedTuple):
    """Rows of a latency table, and the timing variability: the machine's speed, its interquartile range over its median."""

    rows: list[dict]
    variability: float


class WholeNetworks(NamedTuple):
    """Latencies of networks in µs, [times, networks], and the timing variability meanwhile, as in Measurement."""

    us: np.ndarray
    variability: float


def make_engine(cells: Sequence[Cell], target: Target, whole: bool = False):
    """The engine that runs networks of these cells; on a CPU `whole` ones each in a process of its own.

    Not so with torch.compile, which would take its minutes in each. Raises InputError for a device or thread count that is not
    there.
    """
    check(target)
    if target.is_eager_on_cpu:
        return TorchProcesses(target)
    if target.engine == "command":
        from fbnet.latency.command_engine import CommandEngine  # a device that is measured from afar needs PyTorch alone

        return CommandEngine(cells, target)
    if target.engine == "onnxruntime":
        from fbnet.latency.onnx_engine import OnnxEngine, OnnxProcesses

        if whole:
            return OnnxProcesses(cells, target)
    keep_freed_memory()
    if target.engine == "onnxruntime":
        return OnnxEngine(cells, target)
    return GraphEngine(cells, target) if target.mode == "graphs" else TorchEngine(cells, target)


@contextmanager
def quiet(target: Target):
    """So many threads as the target has, and no garbage collection in the middle of a call."""
    threads = torch.get_num_threads()
    torch.set_num_threads(target.threads)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        torch.set_num_threads(threads)


class Fit(NamedTuple):
    """What makes a network's latency of its cells' medians: a factor for stem and head, one for the layers, µs for each cell."""

    ends: float
    layers: float
    overhead: float

    def latency_us(self, cell: Cell, median_us: float) -> float:
        """What a cell adds to a network, which is never less than nothing."""
        return max(median_us * (self.ends if cell.layer in ENDS else self.layers) + self.overhead, 0.0)


class Samples:
    """Timings in the order in which they were taken.

    `passes`: (build key of a cell, µs) of the cells that ran one after the other; `networks`: index of the pass that was under
    way, cells, µs of the whole.
    """

    def __init__(self):
        self.passes: list[list[tuple[Hashable, float]]] = []
        self.networks: list[tuple[int, tuple[Cell, ...], float]] = []


def measure(
    space: SearchSpace, classes: int, target: Target, precision: float, runs: int, progress: Callable = iter
) -> Measurement:
    """The latency of every cell of a space on a target, as shares of whole networks' latencies.

    In each round every unfinished candidate of every layer is timed: inside random networks, where the engine can do that, or
    else alone. Then medians are fitted to what whole networks took in the same rounds. A cell is done when half of the 95 %
    confidence interval of its median is within `precision` of it (of a tenth of the mean cell, if that is more), or after
    `runs` runs. `progress` wraps the range of rounds, or with a command, which is called CALLS times for each, all calls. Raises
    InputError.
    """
    cells = space.cells(classes)
    with quiet(target):
        engine = make_engine(cells, target)
        inside = target.engine == "torch" and target.mode != "graphs"
        if target.engine == "command":
            samples = called(engine, space, classes, progress)
        else:
            sampler = (inside_networks if inside else alone)(engine, space, classes)
            samples = sampled(sampler, {cell.build_key for cell in cells}, precision, runs, progress)
    timed, drift = steady(samples.passes)
    fitted = fit(timed, drift, samples.networks, with_overhead=not inside)
    return Measurement([_row(cell, timed, fitted) for cell in cells], iqr(drift) / float(np.median(drift)))


def sampled(sampler: Callable[[set, Samples], None], undone: set, precision: float, runs: int, progress: Callable) -> Samples:
    """Rounds of a sampler until each cell is done."""
    start, turns = time.monotonic(), 0
    while time.monotonic() - start < WARM_UP_S or turns < NETWORKS_INSIDE:
        sampler(undone, Samples())
        turns += 1
    samples = Samples()
    for number in progress(range(1, runs + 1)):
        sampler(undone, samples)
        if number % _ROUNDS_BETWEEN_LOOKS == 0 or number == runs:
            undone = _unfinished(steady(samples.passes)[0], precision, runs)
            if not undone:
                break
    return samples


def _unfinished(timed: dict[Hashable, np.ndarray], precision: float, runs: int) -> set:
    least = 0.1 * np.mean([np.median(values) for values in timed.values()])
    return {
        key
        for key, values in timed.items()
        if len(values) < min(runs, LEAST_RUNS)
        or (len(values) < runs and half_width(iqr(values), len(values)) > precision * max(np.median(values), least))
    }


def inside_networks(engine, space: SearchSpace, classes: int) -> Callable[[set, Samples], None]:
    """A round of timing cells inside random networks, where they find caches and memory as they do in use."""
    rng = random.Random(0)

    def networks(architectures: list) -> list:
        paths = [space.network_cells(ops, classes) for ops in architectures]
        return [(path, engine.network(path)) for path in paths]

    designs = min(NETWORKS_INSIDE, max(1, MOST_NETWORKS // max(map(len, space.layers))))
    turns = itertools.cycle([(networks(design(space, rng)), networks(light(space, rng))) for _ in range(designs)])

    def one_round(undone: set, samples: Samples) -> None:
        turn, small = next(turns)
        for path, network in rng.sample(turn, len(turn)):
            timed = [cell.build_key for cell in path if not cell.is_identity]
            if undone.isdisjoint(timed):
                continue
            laps, whole_us = done(network, laps_and_whole)
            samples.passes += [list(zip(timed, one, strict=True)) for one in laps]
            samples.networks.append((len(samples.passes) - 1, path, whole_us))
        for path, network in small:
            samples.networks.append((len(samples.passes) - 1, path, done(network, warm_us)))

    return one_round


def done(network, what: Callable):
    """What a function of a network returns, called where the network is."""
    return network.do(what) if isinstance(network, Remote) else what(network)


def alone(engine, space: SearchSpace, classes: int) -> Callable[[set, Samples], None]:
    """A round of timing cells alone, in random order, and networks in between, for `fit` to tell what is missing."""
    rng = random.Random(0)
    cells = {cell.build_key: cell for cell in space.cells(classes)}
    singles = {key: engine.network([cell]) for key, cell in cells.items() if not cell.is_identity}
    paths = [space.network_cells(ops, classes) for _ in range(NETWORKS_ALONE) for ops in complete(space, rng)]
    whole = [(path, engine.network(path)) for path in paths]
    turns = itertools.cycle(range(NETWORKS_ALONE))

    def one_round(_undone: set, samples: Samples) -> None:
        order = rng.sample(list(singles), len(singles))
        turn = whole[next(turns) :: NETWORKS_ALONE]
        for place, (path, network) in enumerate(rng.sample(turn, len(turn))):
            samples.networks.append((len(samples.passes), path, warm_us(network)))
            # A network shares its pass with some of the cells: their drift is its drift.
            samples.passes.append([])
            for key in order[place % len(order) :: len(turn)]:
                singles[key].time()
                samples.passes[-1] += [(key, singles[key].time()) for _ in range(2)]

    return one_round


def called(engine, space: SearchSpace, classes: int, progress: Callable) -> Samples:
    """CALLS rounds of calls, in random order, of all cells alone and of networks, for `fit` to tell what is missing."""
    rng = random.Random(0)
    distinct = [(cell,) for cell in measured(space, classes)]
    networks = [space.network_cells(ops, classes) for _ in range(NETWORKS_ALONE) for ops in complete(space, rng)]
    commands = [(path, engine.network(path)) for path in (*distinct, *networks)]
    samples = Samples()
    for path, command in progress([one for _ in range(CALLS) for one in rng.sample(commands, len(commands))]):
        us = command.time()
        if len(path) > 1:
            samples.networks.append((len(samples.passes), path, us))
        samples.passes.append([(path if len(path) > 1 else path[0].build_key, us)])
    return samples


def measured(space: SearchSpace, classes: int) -> list[Cell]:
    """The cells that are measured: of those that are built alike one, and no identity."""
    return list({cell.build_key: cell for cell in space.cells(classes) if not cell.is_identity}.values())


def design(space: SearchSpace, rng: random.Random) -> list[tuple[str, ...]]:
    """Random architectures that together hold every candidate of every layer, as few as may be."""
    columns = [rng.sample(range(len(layer)), len(layer)) for layer in space.layers]
    networks: list[list[int]] = [[] for _ in range(max(map(len, columns)))]
    channels = [space.stem.c_out] * len(networks)
    for layer, column in zip(space.layers, columns, strict=True):
        fitting = {c_in: [number for number in column if layer[number].c_in == c_in] for c_in in dict.fromkeys(channels)}
        due = {c_in: iter(numbers) for c_in, numbers in fitting.items()}
        chosen = [next(due[c_in], None) for c_in in channels]
        # Where all are held, the channels that fewest networks have come next: in later layers none may be too few.
        have = Counter(layer[number].c_out for number in chosen if number is not None)
        for network, number in enumerate(chosen):
            if number is None:
                fewest = min(have[layer[other].c_out] for other in fitting[channels[network]])
                number = rng.choice([other for other in fitting[channels[network]] if have[layer[other].c_out] == fewest])
                have[layer[number].c_out] += 1
            networks[network].append(number)
            channels[network] = layer[number].c_out
    return list(map(space.ops, networks))


def light(space: SearchSpace, rng: random.Random) -> list[tuple[str, ...]]:
    """Architectures that are mostly as small as can be, so that much of what they need stays in the cache."""

    def one(share: float) -> tuple[str, ...]:
        def choose(index: int, numbers: list[int]) -> int:
            least = min(numbers, key=lambda number: size([space.layers[index][number]]))
            return least if rng.random() < share else rng.choice(numbers)

        return space.ops(walk(space, choose))

    return list(map(one, LIGHT))


def complete(space: SearchSpace, rng: random.Random) -> list[tuple[str, ...]]:
    """A design, and light architectures."""
    return design(space, rng) + light(space, rng)


def fit(timed: dict[Hashable, np.ndarray], drift: np.ndarray, networks: list, with_overhead: bool) -> Fit:
    """How cells' medians become networks' latencies, by robust least squares of the relative error.

    Of cells timed alone, one factor and an overhead for each. Of cells timed inside networks, two factors: what stem and head
    need stays in the cache in a small network, and does not in those where they were timed. `timed` and `drift` as `steady`
    returns them, `networks` as in Samples.
    """
    medians = {key: np.median(values) for key, values in timed.items()}
    measured = np.array([time / drift[index] for index, _, time in networks])
    sums = np.zeros((len(networks), 3))
    for row, (_, path, _) in zip(sums, networks, strict=True):
        for cell in path:
            row[0 if cell.layer in ENDS else 1] += medians.get(cell.build_key, 0.0)
            row[2] += cell.build_key in medians
    two = np.array([[1, 0], [1, 0], [0, 1]] if with_overhead else [[1, 0], [0, 1], [0, 0]])  # what is fitted of a Fit
    table, weights = sums @ two / measured[:, None], np.ones(len(measured))
    for _ in range(10):  # Huber's weights, so that a network that was disturbed counts less
        found = np.linalg.lstsq(table * weights[:, None], weights, rcond=None)[0]
        error = np.abs(table @ found - 1)
        weights = np.sqrt(np.minimum(1, 1.345 * 1.48 * np.median(error) / np.maximum(error, 1e-12)))
    ends, layers, overhead = (two @ found).tolist()
    return Fit(min(max(ends, layers / 2), 2 * layers), layers, overhead)  # a cache does no more; a noisy machine may seem to


def _row(cell: Cell, timed: dict[Hashable, np.ndarray], fitted: Fit) -> dict:
    key = {column: getattr(cell, column) for column in KEY}
    if cell.build_key not in timed:  # nothing to run
        return key | {"latency_us": 0.0, "iqr_us": 0.0, "runs": 0}
    values = timed[cell.build_key]
    return key | {
        "latency_us": fitted.latency_us(cell, float(np.median(values))),
        "iqr_us": fitted.layers * iqr(values),
        "runs": len(values),
    }


def analytic(space: SearchSpace, classes: int, cost: str) -> Measurement:
    """A table that counts instead of measuring: 1 µs for 1000 MACs, or 1000 parameters."""
    rows = []
    for cell in space.cells(classes):
        macs, params = size([cell])
        key = {column: getattr(cell, column) for column in KEY}
        rows.append(key | {"latency_us": {"macs": macs, "params": params}[cost] / 1000, "iqr_us": 0.0, "runs": 0})
    return Measurement(rows, 0.0)


def measure_networks(
    space: SearchSpace,
    classes: int,
    target: Target,
    architectures: Sequence[tuple[str, ...]],
    runs: int,
    times: int = 1,
    progress: Callable = iter,
    other: Sequence[tuple[str, ...]] = (),
) -> WholeNetworks:
    """Latencies of whole networks, and after them of `other` ones with the other allocator, so many `times` one after the other.

    Each time is `runs` rounds over all networks in random order; in a round a network runs untimed first, then twice timed; a
    command is called once, and in at most CALLS rounds. The drift of the machine's speed is taken out within each time, and left
    between them. Raises InputError.
    """
    paths, other_paths = ([space.network_cells(ops, classes) for ops in some] for some in (architectures, other))
    rng = random.Random(0)
    passes: list[list] = [[] for _ in range(times)]
    calls = target.engine == "command"
    runs = min(runs, CALLS) if calls else runs
    with quiet(target):
        engine = make_engine(dict.fromkeys(cell for path in paths for cell in path), target, whole=True)
        networks = [*map(engine.network, paths), *(engine.network(path, target.other_allocator) for path in other_paths)]
        for number in progress(range(times * runs)):
            for index in rng.sample(range(len(networks)), len(networks)):
                network = networks[index]
                taken = [network.time()] if calls else done(network, warm_twice)
                passes[number // runs].append([(index, us) for us in taken])
    us, drifts = [], []
    for one in passes:
        timed, drift = steady(one)
        us.append([np.median(timed[index]) for index in range(len(networks))])
        drifts.append(iqr(drift) / float(np.median(drift)))
    return WholeNetworks(np.array(us), max(drifts))
