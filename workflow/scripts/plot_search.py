#!/usr/bin/env python3
"""Draw a search: theta (its probabilities over the epochs, or what operators are worth), the history, what was derived."""

import argparse
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.errors import InputError
from fbnet.evaluation.words import rounded
from fbnet.latency import read_table
from fbnet.report.diagram import stage_diagram
from fbnet.report.search_plots import history, theta_strips
from fbnet.report.tables import if_any, number, positive, read_tsv, share, signed, whole, word
from fbnet.report.words import milliseconds
from fbnet.report.worth_plot import worth_and_cost
from fbnet.runtime import log, replacing, run
from fbnet.space import read_space

THETA = {"epoch": whole, "layer": word, "op": word, "probability": share, "theta": signed}
HISTORY = {"epoch": whole, "phase": word, "latency_us": if_any(number), "top1": if_any(share)}
ARCHITECTURES = {"name": word, "ops": word, "latency_us": positive, "macs": whole, "params": whole}


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    pictures = arguments.theta, arguments.history, arguments.architecture
    sources = arguments.search / "theta.tsv", arguments.search / "history.tsv", arguments.architectures
    theta, epochs, found = map(read_tsv, sources, (THETA, HISTORY, ARCHITECTURES))
    if not found:
        raise InputError(f"{arguments.architectures} has no architecture")
    first = found[0]
    table = read_table(arguments.table, space, arguments.classes)
    budget_us = in_us(arguments.latency_budget, table) if arguments.latency_budget else None
    millions = f"{rounded(first['macs'] / 1e6)} M MACs\n{rounded(first['params'] / 1e6)} M parameters"
    name = f"{first['name']}\n{milliseconds(first['latency_us'])} predicted\n{millions}"
    rated = any(row["phase"] == "rated" for row in epochs)
    draws = (
        lambda path: (
            worth_and_cost(theta, table, f"{arguments.name}: what each operator is worth, and what it costs", path)
            if rated
            else theta_strips(theta, f"{arguments.name}: probability of each candidate, layer by layer", path)
        ),
        lambda path: history(epochs, f"{arguments.name}: predicted latency and accuracy", path, budget_us),
        lambda path: stage_diagram({name: first["ops"].split()}, space, f"{arguments.name}: the derived architecture", path),
    )
    with replacing(*pictures) as temporaries:
        for draw, source, path in zip(draws, sources, temporaries, strict=True):
            try:
                draw(path)
            except InputError as error:
                raise InputError(f"{source}: {error}") from None
    log.info("Pictures of search %s: %s", arguments.name, ", ".join(map(str, pictures)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--search", type=Path, required=True, help="folder of the search, with theta.tsv and history.tsv")
    parser.add_argument("--architectures", type=Path, required=True, help="TSV of sample_architecture; its first row is drawn")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--name", required=True, help="name of the search, for the titles")
    parser.add_argument("--latency-budget", help="the search's budget, drawn as a line: 8ms, 8500us, 0.8 * fbnet_c")
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV)")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    parser.add_argument("--theta", type=Path, required=True, help="the picture of theta to write (.svg)")
    parser.add_argument("--history", type=Path, required=True, help="the picture of the history to write (.svg)")
    parser.add_argument("--architecture", type=Path, required=True, help="the stage diagram to write (.svg)")
    run(parser, main)
