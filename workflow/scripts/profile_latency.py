#!/usr/bin/env python3
"""Measure the latency of every operator of a search space on this machine; or check a table made elsewhere, and take it over."""

import argparse
from pathlib import Path

from fbnet.latency import TABLE_SETTINGS, Target, hardly_differ, read_table, too_fast
from fbnet.latency.acceptance import CHOICES, settle
from fbnet.latency.foreign import as_ours, template
from fbnet.latency.machine import Watch, take_device
from fbnet.latency.profiling import SECONDS_AN_ENTRY, analytic, measure, measured
from fbnet.latency.table import COLUMNS, drawing, parse_table, tsv
from fbnet.latency.target import add_options, from_options
from fbnet.runtime import Progress, log, run, write_text
from fbnet.space import SearchSpace, read_space


def main(arguments: argparse.Namespace) -> None:
    space, target = read_space(arguments.space), from_options(arguments)
    if arguments.template:
        return write_text(arguments.out, template(space, arguments.classes))
    expected = target.settings()
    if arguments.table:
        log.info("Taking over the table %s.", arguments.table)
        expected = {key: expected[key] for key in TABLE_SETTINGS}
        text = as_ours(arguments.table, space, arguments.classes)
        # Read first: the name that the user gave is the one to tell of.
        parse_table(text, arguments.table, space, arguments.classes, expected)
    else:
        text = _measured(space, target, arguments)
        if arguments.history and target.engine != "analytic":
            text = settle(text, arguments.history, arguments.new_measurement)
    write_text(arguments.out, text)
    table = read_table(arguments.out, space, arguments.classes, expected)
    log.info("Latencies of space %s:\n%s", space.name, drawing(table))
    log.info("Networks of this space are predicted to take %.0f to %.0f µs: %s", table.least_us, table.most_us, arguments.out)
    for doubt in (too_fast(arguments.out) if arguments.table else None, hardly_differ(arguments.out)):
        if doubt:
            log.warning("%s%s", doubt[0].upper(), doubt[1:])


def _measured(space: SearchSpace, target: Target, arguments: argparse.Namespace) -> str:
    target.check("latency")
    header = {"space": space.name, "norm": space.stem.norm} | target.settings()
    if target.engine == "analytic":
        log.info("Counting %s of space %s: 1 µs stands for 1000.", target.cost, space.name)
        return tsv(analytic(space, arguments.classes, target.cost).rows, COLUMNS, header)
    about, timed = take_device(target), len(measured(space, arguments.classes))
    log.info(
        "Measuring the %d entries that differ, of %d of a table for space %s, some %.0f s or more, at most %d rounds: %s.",
        *(timed, len(space.cells(arguments.classes)), space.name, SECONDS_AN_ENTRY * timed, arguments.runs),
        ", ".join(f"{key} {value}" for key, value in target.settings().items()),
    )
    watch = Watch(about.get("gpu"))
    found = measure(
        *(space, arguments.classes, target, arguments.precision, arguments.runs),
        lambda rounds: Progress(rounds, desc="profile", unit="call" if target.engine == "command" else "round"),
    )
    return tsv(found.rows, COLUMNS, header | about | watch.report(found.variability))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    add_options(parser)
    parser.add_argument("--precision", type=float, default=0.02, help="an entry is done when its median is known this well")
    parser.add_argument("--runs", type=int, default=100, help="most timed runs of each entry")
    parser.add_argument("--table", type=Path, help="take over this table instead of measuring")
    parser.add_argument("--template", action="store_true", help="write a table without latencies, to be filled in")
    parser.add_argument("--history", type=Path, help="folder that keeps the table in use, to compare a new measurement with")
    parser.add_argument(
        "--new-measurement",
        choices=CHOICES,
        default="compare",
        help="with --history: replace the table in use if they do not agree (compare), in any case (accept), or not (refuse)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the table to write (TSV)")
    run(parser, main)
