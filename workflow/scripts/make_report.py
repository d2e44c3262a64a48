#!/usr/bin/env python3
"""Make one HTML page of what was searched, what was derived, and how good it is; and the picture of accuracy against latency."""

import argparse
from pathlib import Path

from fbnet.errors import InputError
from fbnet.latency import read_header
from fbnet.mappings import read_mapping
from fbnet.provenance import file_hash, versions
from fbnet.report.evaluation import read_evaluation, read_one_shot
from fbnet.report.evaluation_plots import accuracy_latency, side_by_side
from fbnet.report.networks import trained
from fbnet.report.page import Search, Target, page
from fbnet.report.picture import read_picture
from fbnet.report.ranking_plot import ranking_plot
from fbnet.runtime import log, replacing, run
from fbnet.space import read_space

NOT_MEASURED = "-"


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    tables = [arguments.summary, arguments.comparisons, arguments.ranking, arguments.devices, arguments.findings]
    evaluation = read_evaluation(*tables)
    settings = read_mapping(arguments.settings, "configuration")
    targets = [_target(*given) for given in arguments.target]
    searches = [Search(name, *map(read_picture, pictures)) for name, *pictures, _ in arguments.search or []]
    one_shot = {name: read_one_shot(path) for name, *_, path in arguments.search or []}
    try:
        architectures = side_by_side(evaluation.networks, space)
        ranking = ranking_plot(evaluation, one_shot, arguments.classes)
    except InputError as error:
        raise InputError(f"{arguments.summary}: {error}") from None
    with replacing(arguments.scatter, arguments.out) as (scatter, out):
        accuracy_latency(evaluation.networks, f"Accuracy and latency of networks of {space.name}", scatter)
        pictures = (read_picture(scatter), ranking, architectures)
        hashes = {path.name: file_hash(path) for path in tables}
        out.write_text(page(space, evaluation, targets, searches, *pictures, settings, versions(), hashes), encoding="utf-8")
    log.info("Report of %d searches and %d networks: %s", len(searches), len(trained(evaluation.networks)), arguments.out)


def _target(name: str, table: str, heat_map: str, validation: str, scatter: str) -> Target:
    measured = validation != NOT_MEASURED
    headers = [read_header(path) if path != NOT_MEASURED else None for path in (table, validation)]
    hashes = {Path(path).name: file_hash(path) for path in (table, *([validation] if measured else []))}
    return Target(*(name, headers[0], read_picture(heat_map), headers[1], read_picture(scatter) if measured else None, hashes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", type=Path, required=True, help="TSV with a row for each network that was trained")
    parser.add_argument("--comparisons", type=Path, required=True, help="TSV with a row for each budget and baseline")
    parser.add_argument("--ranking", type=Path, required=True, help="TSV of how random architectures are ordered")
    parser.add_argument("--devices", type=Path, required=True, help="TSV with a row for each target and derived network")
    parser.add_argument("--findings", type=Path, required=True, help="TSV of claims and warnings")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--settings", required=True, help="the resolved configuration, as JSON or the name of a YAML file")
    parser.add_argument(
        "--target",
        nargs=5,
        action="append",
        required=True,
        metavar=("NAME", "TABLE", "HEAT_MAP", "VALIDATION", "SCATTER"),
        help="a latency target, its table and their pictures; - for the last two if it is not measured; may be repeated",
    )
    parser.add_argument(
        "--search",
        nargs=5,
        action="append",
        metavar=("NAME", "THETA", "HISTORY", "ARCHITECTURE", "ONE_SHOT"),
        help="a search, its pictures, and the TSV of one-shot accuracies in its supernet; may be repeated",
    )
    parser.add_argument("--scatter", type=Path, required=True, help="the picture of accuracy against latency to write (.svg)")
    parser.add_argument("--out", type=Path, required=True, help="the page to write (.html)")
    run(parser, main)
