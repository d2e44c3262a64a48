"""A folder of images: train/ and test/, a folder for each class in both."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL

from fbnet.data.dataset import seal, workplace
from fbnet.data.shards import Shards
from fbnet.data.survey import SPLITS, Survey, listed, prepared, refusal, stored_size, survey
from fbnet.errors import InputError
from fbnet.exclusive import alone
from fbnet.provenance import code_hashes
from fbnet.runtime import StopRequest, log

FEW = 10  # images of a class in training from which on it is not warned of
NAMED = 20  # files in one sentence


def prepare_image_folder(out: Path, folder: Path, resolution: int, broken: str = "refuse", processes: int = 1) -> None:
    """Images in class folders under train/ and test/, upright, scaled and centre-cropped to `stored_size(resolution)`².

    `broken` says what is done with files that cannot be read: refuse, or skip. What is done when it is stopped stays for the
    next call. Raises InputError, with all that is wrong, and Stopped.
    """
    found = survey(folder)
    if found.wrong:
        raise InputError(refusal(folder, found.wrong))
    _tell_left_out(found)
    size = stored_size(resolution)
    made = workplace(out)
    keep = False
    with StopRequest() as stop, alone(made, stop) as waited:
        try:
            made_by = json.dumps([PIL.__version__, code_hashes(Path(__file__))])
            shards = {split: Shards(made / f"{split}_images.npy", found.files[split], size, made_by) for split in SPLITS}
            identity = hashlib.sha256("".join(part.key for one in shards.values() for part in one.shards).encode()).hexdigest()
            source = {"folder": str(folder), "broken": broken, "identity": identity}
            if waited and prepared(out, source):
                log.info("%s is there: whoever we waited for has made it.", out)
                return
            keep = any(len(one.shards) > 1 for one in shards.values())  # otherwise there is nothing to go on with
            for one in shards.values():
                one.fill(processes, stop)
            faults = [
                f"{found.files[split][number]} ({why})"
                for split, one in shards.items()
                for number, why in sorted(one.faults.items())
            ]
            _judge(faults, broken)
            for split, one in shards.items():
                labels = np.array(found.labels[split], dtype=np.int64)[one.close()]
                _tell_counts(split, found.classes, labels)
                np.save(made / f"{split}_labels.npy", labels)
            seal(made, out, "image_folder", found.classes, source | {"skipped": faults}, resolution)
            keep = False
        finally:
            if not keep:
                shutil.rmtree(made)


def _tell_left_out(found: Survey) -> None:
    """Say in the log what of a folder is not taken for an image of its class."""
    for split in SPLITS:
        if kinds := listed(found.left_out[split]):
            log.warning("%s: files that are no images we can read were left out%s.", split, kinds)
        if deep := found.deep[split]:
            log.warning("%s: %s has folders of its own; what is in them counts to it.", split, ", ".join(deep))


def _judge(faults: Sequence[str], broken: str) -> None:
    """Raise InputError with the files that cannot be read, or say in the log that they are left out."""
    if not faults:
        return
    more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    named = ", ".join(faults[:NAMED]) + more
    if broken == "refuse":
        raise InputError(
            f"dataset.folder: unreadable images ({len(faults)}): {named}: replace or delete them, or set dataset.broken to skip"
        )
    log.warning("Unreadable images were left out (%d): %s.", len(faults), named)


def _tell_counts(split: str, classes: Sequence[str], labels: np.ndarray) -> None:
    """Say in the log how many images each class has. Raises InputError for one that has none left."""
    counts = dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
    if none := [name for name, count in counts.items() if not count]:
        raise InputError(f"dataset.folder: no image of {', '.join(none[:NAMED])} in {split}/ can be read")
    more = f" and {len(counts) - NAMED} more classes" if len(counts) > NAMED else ""
    shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:NAMED])
    log.info("%s: images by class: %s%s.", split, shown, more)
    if few := [name for name, count in counts.items() if split == "train" and count < FEW]:
        log.warning("%s: fewer than %d images of %s: hardly anything can be learned of them.", split, FEW, ", ".join(few[:NAMED]))
