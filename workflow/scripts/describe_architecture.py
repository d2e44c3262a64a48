#!/usr/bin/env python3
"""Print an architecture: its layers with shapes, parameters, MACs and, given a table, latency; and the totals."""

import argparse
import json
from pathlib import Path

from fbnet.architecture import find
from fbnet.architecture.card import describe, text
from fbnet.architecture.lookup import add_options
from fbnet.latency import read_table
from fbnet.runtime import run


def main(arguments: argparse.Namespace) -> None:
    architecture = find(arguments.arch, arguments.space, arguments.classes, arguments.name)
    table = read_table(arguments.table, architecture.space, architecture.classes) if arguments.table else None
    description = describe(architecture, table)
    print(json.dumps(description, indent=2) if arguments.json else text(description), end="\n" if arguments.json else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--table", type=Path, help="latency table (TSV)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    run(parser, main)
