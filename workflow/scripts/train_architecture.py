#!/usr/bin/env python3
"""Train one architecture from scratch, or from a supernet's weights; resumes where it was stopped."""

import argparse
import platform
from pathlib import Path

import torch

from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.errors import InputError
from fbnet.evaluation.retraining import Training
from fbnet.mappings import read_mapping
from fbnet.network import subnetwork_weights
from fbnet.provenance import code_hashes, file_hash, versions
from fbnet.runtime import StopRequest, log, replacing, run
from fbnet.search import read_supernet
from fbnet.settings import TrainSettings
from fbnet.space import Architecture, SearchSpace, parse, read_architectures, read_space
from fbnet.training import alone, fingerprint, made_by_another
from fbnet.training.checkpoint import delete


def main(arguments: argparse.Namespace) -> None:
    with StopRequest() as stop, alone(arguments.out, stop) as waited:
        train(arguments, stop, waited)


def train(arguments: argparse.Namespace, stop: StopRequest, waited: bool) -> None:
    values = read_mapping(arguments.settings, "settings") | {"seed": arguments.seed}
    settings = TrainSettings.of(values)
    dataset = read_dataset(arguments.data)
    space = read_space(arguments.space)
    architecture = Architecture(arguments.name, space, _operators(arguments, space), len(dataset.classes))
    if dataset.train_images.shape[1] != space.resolution:
        raise InputError(
            f"the dataset {arguments.data} has images of {dataset.train_images.shape[1]} pixels, but space {space.name} "
            f"takes {space.resolution}: prepare it again for this space"
        )
    weights = None
    if arguments.supernet:
        supernet = read_supernet(arguments.supernet)
        if supernet["space"] != space.definition or list(supernet["classes"]) != list(dataset.classes):
            raise InputError(f"{arguments.supernet} is of another space or of other classes than the architecture")
        weights = subnetwork_weights(supernet["weights"], architecture.ops)
    inputs = {
        "settings": values,
        "space": space.definition,
        "ops": list(architecture.ops),
        "supernet_sha256": file_hash(arguments.supernet) if arguments.supernet else None,
        "data_sha256": file_hash(arguments.data / "dataset.json"),
        "code": code_hashes(Path(__file__)),
    }
    if waited and made_by_another(arguments.out / "network.pt", inputs):
        log.info("The same training has ended meanwhile; its result is used.")
        return
    training = Training(dataset, architecture, settings, choose_device(arguments.threads, settings.gpu), weights)
    log.info(
        "%s on %s, seed %d: %d images to train on, %d left out.",
        *(architecture.name, dataset.name, settings.seed),
        *(len(training.batches["train"].indices), len(training.validation.indices)),
    )
    checkpoint = arguments.out / "checkpoint.pt"
    training.run(checkpoint, fingerprint(**inputs), arguments.out / "tensorboard", arguments.checkpoint_minutes, stop)

    found = training.result()
    environment = {"versions": versions(), "host": platform.node(), "device": str(training.device)}
    with replacing(arguments.out / "history.tsv", arguments.out / "network.pt") as (history, network):
        training.history_rows().to_csv(history, sep="\t", index=False, float_format="%.6g")
        torch.save(found | {"name": architecture.name, "classes": list(dataset.classes)} | inputs | environment, network)
    delete(checkpoint)
    log.info("%s: %.2f %% of the test images are right.", architecture.name, 100 * found["test_top1"])


def _operators(arguments: argparse.Namespace, space: SearchSpace) -> tuple[str, ...]:
    if arguments.ops:
        return parse(arguments.ops, space)
    rows = read_architectures(arguments.architectures, space)
    for row in rows:
        if arguments.row in (None, row["name"]):
            return row["ops"]
    raise InputError(
        f"{arguments.architectures} has no architecture {arguments.row}; it has {', '.join(row['name'] for row in rows)}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="network", help="what to call it")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--architectures", type=Path, help="TSV of sample_architecture: its first, or the --row of this name")
    which.add_argument("--ops", help="the architecture as a string of operators")
    parser.add_argument("--row", help="name of one of several architectures")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--data", type=Path, required=True, help="folder of a prepared dataset")
    parser.add_argument("--settings", required=True, help="settings of the training: a YAML file, or JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, and of order and augmentation of the images")
    parser.add_argument("--supernet", type=Path, help="supernet.pt whose weights to start from (default: random ones)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--checkpoint-minutes", type=float, default=10, help="minutes between checkpoints within an epoch")
    parser.add_argument("--out", type=Path, required=True, help="folder for network.pt, history.tsv, tensorboard/")
    run(parser, main)
