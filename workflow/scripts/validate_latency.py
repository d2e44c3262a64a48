#!/usr/bin/env python3
"""Compare a latency table with this machine: predicted and measured latencies of random networks, end to end."""

import argparse
from pathlib import Path

from fbnet.latency import device_of
from fbnet.latency.machine import Watch, take_device_of
from fbnet.latency.profiling import measure_networks
from fbnet.latency.table import tsv
from fbnet.latency.target import add_options, from_options
from fbnet.latency.validation import COLUMNS, draw, sentence, statistics
from fbnet.runtime import Progress, log, replacing, run
from fbnet.space import read_space

TIMES = 2  # the networks are measured so often, one time after the other: no prediction can do better than the test-retest error


def main(arguments: argparse.Namespace) -> None:
    space, target = read_space(arguments.space), from_options(arguments)
    table, about = take_device_of(arguments.table, space, arguments.classes, target)
    drawn = draw(table, arguments.networks)
    log.info("Measuring %d random networks of space %s, %d times %d rounds.", len(drawn), space.name, TIMES, arguments.runs)
    watch = Watch(about.get("gpu"))
    measured = measure_networks(
        *(space, arguments.classes, target, [ops for ops, _ in drawn], arguments.runs, TIMES),
        lambda rounds: Progress(rounds, desc="validate", unit="round"),
    )
    first, second = measured.us
    mean = measured.us.mean(0)
    predicted = [table.predict(ops) for ops, _ in drawn]
    found = statistics(predicted, mean)
    retest = statistics(first, second)
    rows = [
        dict(zip(COLUMNS, (" ".join(ops), how, *us, us[0] / us[1] - 1), strict=True))
        for (ops, how), *us in zip(drawn, predicted, mean, first, second, strict=True)
    ]
    told = sentence(found, retest, len(rows))
    header = {"space": space.name, "result": told, "networks": str(len(rows))}
    header |= {key: f"{value:.4f}" for key, value in found.items()}
    header |= {f"retest_{key}": f"{value:.4f}" for key, value in retest.items()}
    header |= target.settings() | about | watch.report(measured.variability)
    paths = [arguments.out, *([arguments.plot] if arguments.plot else [])]
    with replacing(*paths) as (out, *plot):
        out.write_text(tsv(rows, COLUMNS, header), encoding="utf-8")
        if plot:
            from fbnet.report.latency_plots import scatter  # on a device that is measured from afar, matplotlib need not be there

            scatter(rows, f"{space.name} on {device_of(header)}", plot[0])
    log.info("%s", told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV), made with the same settings")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    add_options(parser)
    parser.add_argument("--networks", type=int, default=32, help="number of random networks")
    parser.add_argument("--runs", type=int, default=8, help="timed rounds over them, each of two times")
    parser.add_argument("--out", type=Path, required=True, help="the validation to write (TSV)")
    parser.add_argument("--plot", type=Path, help="scatter plot to write (.svg, .png, .pdf)")
    run(parser, main)
