#!/usr/bin/env python3
"""Search: train a supernet's weights and theta, from the last checkpoint of the same settings, code and inputs if any."""

import argparse
import sys
from pathlib import Path

from fbnet.architecture import in_us
from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.errors import InputError, Stopped
from fbnet.exclusive import alone
from fbnet.latency import check_error, read_table
from fbnet.mappings import read_mapping
from fbnet.provenance import code_hashes, file_hash
from fbnet.runtime import StopRequest, log, run
from fbnet.search import OneShot, Search
from fbnet.settings import settings_of
from fbnet.space import read_space
from fbnet.training import Ranks, fingerprint, launch, made_by_another


def main(arguments: argparse.Namespace) -> None:
    with StopRequest() as stop, Ranks() as ranks:
        if ranks.count > 1:  # whose parent keeps them alone
            train(arguments, stop, ranks, waited=False)
            return
        with alone(arguments.out, stop) as waited:
            train(arguments, stop, ranks, waited)


def train(arguments: argparse.Namespace, stop: StopRequest, ranks: Ranks, waited: bool) -> None:
    values, space = read_mapping(arguments.settings, "settings"), read_space(arguments.space)
    dataset = read_dataset(arguments.data, space.resolution)
    inputs = {"settings": values, "space": space.definition, "code": code_hashes(Path(__file__))}
    inputs["data_sha256"] = file_hash(arguments.data / "dataset.json")
    if values.get("method") == "fbnet":
        if not arguments.table:
            raise InputError("a search by method fbnet minimises latency: give its --table")
        table = read_table(arguments.table, space, len(dataset.classes), read_mapping(arguments.expected, "expected"))
        inputs["table_sha256"] = file_hash(arguments.table)
    if arguments.validation:
        check_error(arguments.table, arguments.validation, arguments.largest_error)
    if arguments.latency_budget:
        values["loss"]["target_us"] = in_us(arguments.latency_budget, table)
    settings = settings_of(values)
    if waited and made_by_another(arguments.out / "supernet.pt", inputs):
        log.info("The same search has ended meanwhile; its result is used.")
        return
    if settings.gpu > 1 and ranks.count == 1:
        if stop.signal:
            raise Stopped(f"Stopped by {stop.signal} before training.")
        sys.exit(launch(settings.gpu))
    device = choose_device(arguments.threads, settings.gpu)
    if values["method"] == "fbnet":
        search = Search(dataset, table, settings, device, ranks)
    else:
        search = OneShot(dataset, space, settings, device, ranks)
    digest, minutes = fingerprint(**inputs), arguments.checkpoint_minutes
    search.run(arguments.out / "checkpoint.pt", digest, arguments.out / "tensorboard", minutes, stop)
    if ranks.is_first:
        search.write_result(arguments.out, {"classes": list(dataset.classes)} | inputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of a prepared dataset")
    parser.add_argument("--space", required=True, help="search space: a YAML file, or JSON")
    parser.add_argument("--table", type=Path, help="latency table (TSV), for method fbnet")
    parser.add_argument("--validation", type=Path, help="validation of that table (TSV)")
    parser.add_argument("--largest-error", type=float, default=0.1, help="do not start if its mean error is larger")
    parser.add_argument("--expected", default="{}", help="settings that the table must not contradict: a YAML file, or JSON")
    parser.add_argument("--settings", required=True, help="settings of the search: a YAML file, or JSON")
    parser.add_argument("--latency-budget", help="the latency that loss.form target aims at: 8ms, 8500us, 0.8 * fbnet_c")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--checkpoint-minutes", type=float, default=10, help="minutes between checkpoints within an epoch")
    parser.add_argument("--out", type=Path, required=True, help="folder for supernet.pt, theta.tsv, history.tsv, tensorboard/")
    run(parser, main)
