#!/usr/bin/env python3
"""Draw a latency table as a heat map: layers × operators."""

import argparse
from pathlib import Path

from fbnet.latency import device_of, read_header, read_table
from fbnet.report.latency_plots import heat_map
from fbnet.runtime import log, replacing, run
from fbnet.space import read_space


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    table = read_table(arguments.table, space, arguments.classes)
    with replacing(arguments.out) as (out,):
        heat_map(table, f"Latency of each operator of {space.name} on {device_of(read_header(arguments.table))}", out)
    log.info("Heat map of %s: %s", arguments.table, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV)")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write (.svg, .png, .pdf)")
    run(parser, main)
