#!/usr/bin/env python3
"""Prepare a dataset: CIFAR-10 (downloaded, or from a local archive or folder), scikit-learn's digits, or a folder of images."""

import argparse
from pathlib import Path

from fbnet.data.cifar10 import prepare_cifar10
from fbnet.data.dataset import read_dataset
from fbnet.data.digits import prepare_digits
from fbnet.data.download import check_archive, download
from fbnet.data.image_folder import prepare_image_folder
from fbnet.errors import InputError
from fbnet.provenance import file_hash
from fbnet.runtime import log, run


def main(arguments: argparse.Namespace) -> None:
    if arguments.name == "digits":
        prepare_digits(arguments.out, arguments.resolution)
    elif arguments.name == "image_folder":
        if not arguments.folder:
            raise InputError("--folder is not set, but an image_folder needs it")
        prepare_image_folder(arguments.out, arguments.folder, arguments.resolution, arguments.broken, arguments.threads)
    elif arguments.folder:
        prepare_cifar10(arguments.out, None, arguments.folder, {"folder": str(arguments.folder)})
    else:
        if arguments.archive:
            archive, source = arguments.archive, str(arguments.archive)
            check_archive(archive, arguments.checksum)
        else:
            if not arguments.url:
                raise InputError("cifar10 needs one of --url, --archive and --folder")
            # Beside the dataset, so that a change of this code does not download again.
            archive, source = download(arguments.url, arguments.checksum, arguments.out.parent / ".downloads")
        prepare_cifar10(arguments.out, archive, None, {"archive": source, "sha256": file_hash(archive)})
    dataset = read_dataset(arguments.out)
    log.info(
        "%s: %d training and %d test images in %d classes, mean %s, std %s: %s",
        *(dataset.name, len(dataset.train_labels), len(dataset.test_labels), len(dataset.classes)),
        *([round(value, 4) for value in values] for values in (dataset.mean, dataset.std)),
        arguments.out,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", choices=["cifar10", "digits", "image_folder"], required=True)
    parser.add_argument(
        "--url", action="append", help="CIFAR-10's archive on the web; given again: another mirror, tried after it"
    )
    parser.add_argument("--checksum", help="md5:… or sha256:… of the archive")
    parser.add_argument("--archive", type=Path, help="CIFAR-10's archive on this machine")
    parser.add_argument("--folder", type=Path, help="CIFAR-10 unpacked; or train/ and test/ with a folder for each class")
    parser.add_argument("--broken", choices=["refuse", "skip"], default="refuse", help="what is done with unreadable images")
    parser.add_argument("--resolution", type=int, default=32, help="pixels that networks take of digits and image folders")
    parser.add_argument("--threads", type=int, default=1, help="processes that read the images of a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the dataset into")
    run(parser, main)
