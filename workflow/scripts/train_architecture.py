#!/usr/bin/env python3
"""Train one architecture: from scratch, from a supernet's weights, or a trained network further; resumes where it was stopped."""

import argparse
from pathlib import Path

from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.errors import InputError
from fbnet.evaluation.retraining import Training, inherited_weights, operators_of, teaching_weights
from fbnet.evaluation.trained import nth_best
from fbnet.exclusive import alone
from fbnet.mappings import read_mapping
from fbnet.provenance import code_hashes, file_hash
from fbnet.runtime import StopRequest, log, run
from fbnet.settings import TrainSettings
from fbnet.space import Architecture, parse, read_space
from fbnet.training import fingerprint, made_by_another


def main(arguments: argparse.Namespace) -> None:
    with StopRequest() as stop, alone(arguments.out, stop) as waited:
        train(arguments, stop, waited)


def train(arguments: argparse.Namespace, stop: StopRequest, waited: bool) -> None:
    values = read_mapping(arguments.settings, "settings") | {"seed": arguments.seed}
    settings, space = TrainSettings.of(values), read_space(arguments.space)
    dataset = read_dataset(arguments.data, space.resolution)
    before = nth_best(arguments.among, arguments.place) if arguments.among else None
    if before:
        name, ops = before["name"], tuple(before["ops"])
    else:
        name = arguments.name
        ops = parse(arguments.ops, space) if arguments.ops else operators_of(arguments.architectures, arguments.row, space)
    architecture = Architecture(name, space, ops, len(dataset.classes))
    start = before and before["weights"]
    weights = inherited_weights(arguments.supernet, architecture, dataset.classes) if arguments.supernet else start
    teaching = arguments.teacher and teaching_weights(arguments.teacher, architecture, dataset.classes)
    inputs = {
        "settings": values,
        "space": space.definition,
        "ops": list(ops),
        "supernet_sha256": file_hash(arguments.supernet) if arguments.supernet else before and before["supernet_sha256"],
        "teacher_sha256": arguments.teacher and file_hash(arguments.teacher),
        "before_sha256": before and before["sha256"],
        "data_sha256": file_hash(arguments.data / "dataset.json"),
        "code": code_hashes(Path(__file__)),
    }
    if before and any(inputs[key] != before[key] for key in ("space", "data_sha256")):
        raise InputError(f"{arguments.among[0]} and those beside it are of another space or dataset than this training")
    if waited and made_by_another(arguments.out / "network.pt", inputs):
        log.info("The same training run has ended meanwhile; its result is used.")
        return
    training = Training(dataset, architecture, settings, choose_device(arguments.threads, settings.gpu), weights, teaching)
    digest = fingerprint(**inputs)
    training.run(arguments.out / "checkpoint.pt", digest, arguments.out / "tensorboard", arguments.checkpoint_minutes, stop)
    epochs = settings.epochs + (before["epochs"] if before else 0)
    training.write_result(arguments.out, {"classes": list(dataset.classes), "epochs": epochs, "entrants": None} | inputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="network", help="what to call it")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--architectures", type=Path, help="TSV of sample_architecture: its first, or the --row of this name")
    which.add_argument("--ops", help="the architecture as a string of operators")
    which.add_argument("--among", type=Path, nargs="+", metavar="FILE", help="network.pt of training runs, one of which goes on")
    parser.add_argument("--place", type=int, default=1, help="of --among: 1 for the best in validation accuracy, 2 for the next")
    parser.add_argument("--row", help="name of one of several architectures")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--data", type=Path, required=True, help="folder of a prepared dataset")
    parser.add_argument("--settings", required=True, help="settings of the training run: a YAML file, or JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, and of order and augmentation of the images")
    parser.add_argument("--supernet", type=Path, help="supernet.pt whose weights to start from (default: random ones)")
    parser.add_argument("--teacher", type=Path, help="supernet.pt whose largest network teaches, as the settings say how much")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--checkpoint-minutes", type=float, default=10, help="minutes between checkpoints within an epoch")
    parser.add_argument("--out", type=Path, required=True, help="folder for network.pt, history.tsv, tensorboard/")
    run(parser, main)
