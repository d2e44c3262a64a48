#!/usr/bin/env python3
"""Compare a latency table with whole networks: predicted and measured latencies of random ones, measured here or elsewhere."""

import argparse
from pathlib import Path

from fbnet.latency import TABLE_SETTINGS, LatencyTable, Target, device_of, read_header, read_table
from fbnet.latency.elsewhere import as_files, measured_elsewhere
from fbnet.latency.machine import Watch, take_device_of
from fbnet.latency.profiling import measure_networks
from fbnet.latency.table import tsv
from fbnet.latency.target import add_options, from_options
from fbnet.latency.validation import COLUMNS, Measured, compared, draw
from fbnet.runtime import Progress, log, replacing, run, write_text
from fbnet.space import read_space

TIMES = 2  # the networks are measured so often, one time after the other: no prediction can do better than the test-retest error


def main(arguments: argparse.Namespace) -> None:
    space, target = read_space(arguments.space), from_options(arguments)
    if arguments.models:
        table = read_table(arguments.table, space, arguments.classes)
        write_text(arguments.out, as_files(table, arguments.classes, target, arguments.networks, arguments.models))
        return log.info(
            "Networks as files in %s; what each of them takes is to be filled in: %s", arguments.models, arguments.out
        )
    if arguments.measured:
        expected = {key: target.settings()[key] for key in TABLE_SETTINGS}
        table = read_table(arguments.table, space, arguments.classes, expected)
        log.info("Taking over the validation %s.", arguments.measured)
        networks, about = measured_elsewhere(arguments.measured, table, read_header(arguments.table))
    else:
        table, about = take_device_of(arguments.table, space, arguments.classes, target)
        networks, disturbance = _measured(table, target, arguments, about.get("gpu"))
        about = target.settings() | about | disturbance
    rows, lines = compared(table, networks)
    header = lines | {key: value for key, value in about.items() if key not in lines}
    paths = [arguments.out, *([arguments.plot] if arguments.plot else [])]
    with replacing(*paths) as (out, *plot):
        out.write_text(tsv(rows, COLUMNS, header), encoding="utf-8")
        if plot:
            from fbnet.report.latency_plots import scatter  # on a device that is measured from afar, matplotlib need not be there

            scatter(rows, f"{space.name} on {device_of(header)}", plot[0])
    log.info("%s", header["result"])


def _measured(
    table: LatencyTable, target: Target, arguments: argparse.Namespace, gpu: str | None
) -> tuple[list[Measured], dict[str, str]]:
    drawn = draw(table, arguments.networks)
    name = table.space.name
    log.info("Measuring %d random networks of space %s, %d times %d rounds.", len(drawn), name, TIMES, arguments.runs)
    watch = Watch(gpu)
    measured = measure_networks(
        *(table.space, arguments.classes, target, [ops for ops, _ in drawn], arguments.runs, TIMES),
        lambda rounds: Progress(rounds, desc="validate", unit="round"),
    )
    us = zip(measured.us.mean(0), *measured.us, strict=True)
    networks = [Measured(*one, *map(float, times)) for one, times in zip(drawn, us, strict=True)]
    return networks, watch.report(measured.variability)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV), made with the same settings")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    add_options(parser)
    parser.add_argument("--networks", type=int, default=32, help="number of random networks")
    parser.add_argument("--runs", type=int, default=8, help="timed rounds over them, each of two times")
    parser.add_argument("--measured", type=Path, help="take over this validation from elsewhere instead of measuring")
    parser.add_argument("--models", type=Path, help="or: write the networks here as ONNX files, and a validation to be filled in")
    parser.add_argument("--out", type=Path, required=True, help="the validation to write (TSV)")
    parser.add_argument("--plot", type=Path, help="scatter plot to write (.svg, .png, .pdf)")
    run(parser, main)
