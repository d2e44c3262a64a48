#!/usr/bin/env python3
"""Train one architecture from scratch, or from a supernet's weights; resumes where it was stopped."""

import argparse
from pathlib import Path

from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.evaluation.retraining import Training, inherited_weights, operators_of
from fbnet.mappings import read_mapping
from fbnet.provenance import code_hashes, file_hash
from fbnet.runtime import StopRequest, log, run
from fbnet.settings import TrainSettings
from fbnet.space import Architecture, parse, read_space
from fbnet.training import alone, fingerprint, made_by_another


def main(arguments: argparse.Namespace) -> None:
    with StopRequest() as stop, alone(arguments.out, stop) as waited:
        train(arguments, stop, waited)


def train(arguments: argparse.Namespace, stop: StopRequest, waited: bool) -> None:
    values = read_mapping(arguments.settings, "settings") | {"seed": arguments.seed}
    settings, space = TrainSettings.of(values), read_space(arguments.space)
    dataset = read_dataset(arguments.data, space.resolution)
    ops = parse(arguments.ops, space) if arguments.ops else operators_of(arguments.architectures, arguments.row, space)
    architecture = Architecture(arguments.name, space, ops, len(dataset.classes))
    weights = inherited_weights(arguments.supernet, architecture, dataset.classes) if arguments.supernet else None
    inputs = {
        "settings": values,
        "space": space.definition,
        "ops": list(ops),
        "supernet_sha256": file_hash(arguments.supernet) if arguments.supernet else None,
        "data_sha256": file_hash(arguments.data / "dataset.json"),
        "code": code_hashes(Path(__file__)),
    }
    if waited and made_by_another(arguments.out / "network.pt", inputs):
        log.info("The same training run has ended meanwhile; its result is used.")
        return
    training = Training(dataset, architecture, settings, choose_device(arguments.threads, settings.gpu), weights)
    digest = fingerprint(**inputs)
    training.run(arguments.out / "checkpoint.pt", digest, arguments.out / "tensorboard", arguments.checkpoint_minutes, stop)
    training.write_result(arguments.out, {"classes": list(dataset.classes)} | inputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="network", help="what to call it")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--architectures", type=Path, help="TSV of sample_architecture: its first, or the --row of this name")
    which.add_argument("--ops", help="the architecture as a string of operators")
    parser.add_argument("--row", help="name of one of several architectures")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--data", type=Path, required=True, help="folder of a prepared dataset")
    parser.add_argument("--settings", required=True, help="settings of the training run: a YAML file, or JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, and of order and augmentation of the images")
    parser.add_argument("--supernet", type=Path, help="supernet.pt whose weights to start from (default: random ones)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--checkpoint-minutes", type=float, default=10, help="minutes between checkpoints within an epoch")
    parser.add_argument("--out", type=Path, required=True, help="folder for network.pt, history.tsv, tensorboard/")
    run(parser, main)
