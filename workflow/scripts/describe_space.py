#!/usr/bin/env python3
"""Say how large a search space is, and what training its supernets will cost on this machine, before days are spent."""

import argparse
from pathlib import Path

from fbnet.device import choose_device
from fbnet.latency import read_table
from fbnet.mappings import read_mapping
from fbnet.runtime import log, run, write_text
from fbnet.search.cost import cost
from fbnet.search.overview import costs, overview
from fbnet.space import read_space


def main(arguments: argparse.Namespace) -> None:
    space, classes = read_space(arguments.space), arguments.classes or read_space(arguments.space).classes
    tables = {path.stem: read_table(path, space, classes) for path in arguments.table}
    parts = [overview(space, classes, tables)]
    supernets = {name: read_mapping(settings, "settings") for name, settings in arguments.supernet}
    if supernets:
        device = choose_device(arguments.threads, max(min(values.get("gpu", 0), 1) for values in supernets.values()))
    for name, values in supernets.items():
        log.info("Taking a few steps of supernet %s, on noise.", name)
        parts.append(costs(name, cost(space, classes, values, arguments.images, device), arguments.images, f"on {device}"))
    log.info("\n%s", "".join(parts).rstrip())
    if arguments.out:
        write_text(arguments.out, "".join(parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, help="number of classes (default: the space's)")
    parser.add_argument("--table", type=Path, nargs="*", default=[], help="latency tables (TSV) whose ranges are told")
    parser.add_argument(
        "--supernet", nargs=2, action="append", default=[], metavar=("NAME", "SETTINGS"), help="a training by its settings (JSON)"
    )
    parser.add_argument("--images", type=int, default=50_000, help="training images")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads where there is no GPU; 0: one for each core")
    parser.add_argument("--out", type=Path, help="file to write it to")
    run(parser, main)
