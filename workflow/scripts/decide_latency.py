#!/usr/bin/env python3
"""Accept the newest measurement of a target as its latency table, or refuse it and go back to the table before it."""

import argparse
from pathlib import Path

from fbnet.errors import InputError
from fbnet.runtime import log, run, write_text


def main(arguments: argparse.Namespace) -> None:
    history = arguments.table.with_suffix("")
    source = history / ("measured.tsv" if arguments.decision == "accept" else "before.tsv")
    if not source.is_file():
        raise InputError(f"there is no {source}: measure the target a second time before you decide")
    text = source.read_text(encoding="utf-8")
    if arguments.table.is_file() and arguments.table.read_text(encoding="utf-8") == text:
        log.info("%s is that table already.", arguments.table)
        return
    write_text(history / "accepted.tsv", text)
    write_text(arguments.table, text)
    log.info("%s is now the table of %s; searches that used another table run again.", arguments.table, source)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("decision", choices=["accept", "refuse"])
    parser.add_argument("table", type=Path, help="the table in use, as in results/latency/cpu.tsv")
    run(parser, main)
