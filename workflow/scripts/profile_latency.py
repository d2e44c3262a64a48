#!/usr/bin/env python3
"""Measure the latency of every operator of a search space on this machine; or check a table made elsewhere, and take it over."""

import argparse
import shutil
from pathlib import Path

from fbnet.latency import read_table, table_text
from fbnet.profiling import conditions, measure
from fbnet.runtime import Progress, log, replacing, run
from fbnet.space import read_space


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    with replacing(arguments.out) as (out,):
        if arguments.table:
            table = read_table(arguments.table, space, arguments.classes)
            shutil.copyfile(arguments.table, out)
            log.info("The table %s has every cell of space %s.", arguments.table, space.name)
        else:
            cells = space.cells(arguments.classes)
            distinct = len({cell.build_key for cell in cells})
            log.info(
                "Measuring %d distinct operators (%d cells) of space %s on %s with %d threads, %d rounds.",
                *(distinct, len(cells), space.name, arguments.device, arguments.threads, arguments.runs),
            )
            header = {"space": space.name, "norm": space.stem.norm} | conditions(arguments.device, arguments.threads)
            rows = measure(
                cells,
                arguments.device,
                arguments.threads,
                arguments.runs,
                lambda r: Progress(r, desc="profile", unit="round"),
            )
            out.write_text(table_text(rows, header))
            table = read_table(out, space, arguments.classes)
            spread = (rows.iqr_us / rows.latency_us).median()
            log.info("The interquartile range of a cell is %.1f %% of its median (the median over cells).", 100 * spread)
    log.info("Networks of this space take %.0f to %.0f µs: %s", table.least_us, table.most_us, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", required=True, help="search space: a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads that one inference may use")
    parser.add_argument("--runs", type=int, default=100, help="timed runs of each operator")
    parser.add_argument("--table", type=Path, help="take over this table instead of measuring")
    parser.add_argument("--out", type=Path, required=True, help="the table to write (TSV)")
    run(parser, main)
