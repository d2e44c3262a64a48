#!/usr/bin/env python3
"""Ways to make a latency table, side by side: which one predicts fresh random networks?

All ways, and the networks that they are compared with, take their turns in the same rounds, so that the drift of the machine's
speed is the same for all. The test-retest error is that between the first and the second half of the rounds.

    python benchmarks/latency_methods.py --space fbnet_224 --engine torch
"""

import argparse
import itertools
import random
import sys
import timeit
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import numpy as np
import torch

from fbnet.device import keep_freed_memory
from fbnet.latency import Target
from fbnet.latency.drift import steady
from fbnet.latency.machine import Watch, describe
from fbnet.latency.profiling import Fit, Samples, alone, fit, inside_networks, make_engine, quiet
from fbnet.latency.torch_engine import TorchEngine
from fbnet.latency.validation import statistics
from fbnet.latency.visit import warm_us
from fbnet.network import build
from fbnet.runtime import Progress
from fbnet.space import read_space
from fbnet.terminal import replace_unknown_characters

EVICT_BYTES = 48_000_000


class Reference:
    """As AnnaAraslanova/FBNet: in training mode with autograd, no warm-up, threads as they are, the mean of timeit's 50."""

    def __init__(self, cells):
        self.cells, self.us = cells, {}

    def round(self, number: int, rounds: int) -> None:
        share = len(self.cells) // rounds + 1  # each cell in one of the rounds: its 50 calls follow one another
        for cell in self.cells[number * share : (number + 1) * share]:
            block, x = build(cell), torch.rand(1, cell.c_in, cell.height, cell.width)
            self.us[cell.build_key] = timeit.timeit("block(x)", number=50, globals={"block": block, "x": x}) / 50 * 1e6

    def predict(self, path) -> float:
        return sum(self.us[cell.build_key] for cell in path)


class Alone:
    """Cells alone, one after the other in random order: `calls` timed calls in a row, the first after `before` was called."""

    def __init__(self, singles, calls: int, before=None):
        self.singles, self.calls, self.before = singles, calls, before
        self.timed, self.rng = defaultdict(list), random.Random(0)

    def round(self, *_) -> None:
        for key in self.rng.sample(list(self.singles), len(self.singles)):
            if self.before:
                self.before()
            self.timed[key] += [self.singles[key].time() for _ in range(self.calls)]

    def predict(self, path) -> float:
        return sum(np.median(self.timed[cell.build_key]) for cell in path if cell.build_key in self.timed)


class InsideNetworks:
    """The round of fbnet.profiling, with as much of its fitting as the name says."""

    def __init__(self, sampler, space, classes: int, scaled: bool, with_overhead: bool = False):
        self.sampler, self.scaled, self.with_overhead = sampler, scaled, with_overhead
        self.keys = {cell.build_key for cell in space.cells(classes)}
        self.samples, self.medians = Samples(), None

    def round(self, *_) -> None:
        self.sampler(self.keys, self.samples)

    def predict(self, path) -> float:
        if self.medians is None:
            timed, drift = steady(self.samples.passes)
            self.medians = {key: float(np.median(values)) for key, values in timed.items()}
            fitted = fit(timed, drift, self.samples.networks, self.with_overhead)
            self.fitted = fitted if self.scaled else Fit(1.0, 1.0, 0.0)
        found = [cell for cell in path if cell.build_key in self.medians]
        return sum(self.fitted.latency_us(cell, self.medians[cell.build_key]) for cell in found)


class LeastSquares:
    """A cell's latency is its coefficient in a ridge regression of random networks' latencies, and cells are never timed."""

    def __init__(self, engine, space, classes: int, count: int):
        rng = random.Random(2)
        ops = [tuple(rng.choice(layer).op for layer in space.layers) for _ in range(count)]
        self.paths = [space.network_cells(one, classes) for one in ops]
        self.networks = list(map(engine.network, self.paths))
        self.timed, self.coefficients = defaultdict(list), None

    def round(self, *_) -> None:
        for index, network in enumerate(self.networks):
            self.timed[index].append(warm_us(network))

    def predict(self, path) -> float:
        if self.coefficients is None:
            number = {key: i for i, key in enumerate({cell.build_key for path in self.paths for cell in path})}
            counts = np.zeros((len(self.paths), len(number)))
            for row, one in enumerate(self.paths):
                for cell in one:
                    counts[row, number[cell.build_key]] += 1
            measured = np.array([np.median(self.timed[i]) for i in range(len(self.paths))])
            mean = measured.mean() / counts.sum(1).mean()
            gram = counts.T @ counts + np.eye(len(number))
            self.coefficients = number, mean, mean + np.linalg.solve(gram, counts.T @ (measured - counts.sum(1) * mean))
        number, mean, us = self.coefficients
        return sum(us[number[cell.build_key]] if cell.build_key in number else mean for cell in path)


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    classes = space.classes
    target = Target(engine=arguments.engine, threads=arguments.threads)
    target.check("target")
    cells = list({cell.build_key: cell for cell in space.cells(classes)}.values())
    rng = random.Random(arguments.seed)
    fresh = [tuple(rng.choice(layer).op for layer in space.layers) for _ in range(arguments.networks)]
    paths = [space.network_cells(ops, classes) for ops in fresh]
    garbage = np.zeros(EVICT_BYTES, np.uint8)
    about, watch = describe(target), Watch()
    with quiet(target):
        # All in this process, which keeps freed memory: what is compared is how cells are timed.
        keep_freed_memory()
        engine = (TorchEngine if target.engine == "torch" else make_engine)(space.cells(classes), target)
        networks = list(map(engine.network, paths))
        singles = {cell.build_key: engine.network([cell]) for cell in cells if not cell.is_identity}
        methods = {
            "alone, warm: 5 calls in a row": Alone(singles, 5),
            "alone, caches evicted": Alone(singles, 1, lambda: garbage.__iadd__(1)),
            "alone, one call in random order": Alone(singles, 1),
            "least squares over 96 networks": LeastSquares(engine, space, classes, 96),
            "alone, scale and overhead fitted to 18 networks": InsideNetworks(
                alone(engine, space, classes), space, classes, True, True
            ),
        }
        if arguments.engine == "torch":
            if space.head.height > 1:  # batch norm in training mode refuses a single value
                methods = {"the reference's": Reference(cells)} | methods
            sampler = inside_networks(engine, space, classes)
            methods["inside random networks"] = InsideNetworks(sampler, space, classes, False)
            methods["inside random networks, scaled"] = InsideNetworks(sampler, space, classes, True)
        timed, turns = defaultdict(list), itertools.cycle(rng.sample(range(len(networks)), len(networks)))
        for number in Progress(range(arguments.rounds), desc="rounds", unit="round"):
            for method in methods.values():
                method.round(number, arguments.rounds)
                for index in itertools.islice(turns, len(networks) // 4):
                    timed[index].append((number, warm_us(networks[index])))
    first, second, measured = (
        np.array([np.median([us for number, us in timed[i] if number in rounds]) for i in range(len(paths))])
        for rounds in (range(arguments.rounds // 2), range(arguments.rounds // 2, arguments.rounds), range(arguments.rounds))
    )
    print(f"space {space.name}, {len(cells)} distinct cells; n = {len(paths)} fresh random networks, seed {arguments.seed}")
    print(f"which take {measured.min():.0f} to {measured.max():.0f} µs; {arguments.rounds} rounds")
    for key, value in ({"engine": target.engine, "threads": target.threads} | about | watch.report(0.0)).items():
        print(f"# {key}: {value}")
    retest = statistics(first, second)["mean_error"]
    print(f"{'':50}{'MAPE':>8}{'rescaled':>10}{'bias':>8}{'worst':>8}{'Spearman':>10}{'Kendall':>9}{'MAPE / retest':>15}")
    for name, method in methods.items():
        _line(name, np.array([method.predict(path) for path in paths]), measured, retest)
    _line("test-retest: the networks measured twice", first, second, retest)


def _line(name: str, predicted: np.ndarray, measured: np.ndarray, retest: float) -> None:
    found = statistics(predicted, measured)
    shares = f"{found['mean_error']:>8.1%}{found['rescaled_error']:>10.1%}{found['bias']:>+8.1%}{found['worst_error']:>8.1%}"
    print(f"{name:50}{shares}{found['spearman']:>10.3f}{found['kendall']:>9.3f}{found['mean_error'] / retest:>15.1f}")


if __name__ == "__main__":
    replace_unknown_characters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="fbnet_224")
    parser.add_argument("--engine", choices=["torch", "onnxruntime"], default="torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", type=int, default=32, help="fresh random networks")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7, help="of the fresh networks")
    main(parser.parse_args())
