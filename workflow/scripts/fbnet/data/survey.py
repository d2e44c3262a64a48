"""What is known of a dataset before it is prepared: its classes, its images, and what is wrong with a folder of them."""

import json
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fbnet.errors import InputError

TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1_437}
CLASSES = {"cifar10": 10, "digits": 10}
# The halves of an image folder, and what others call them.
SPLITS = {"train": ("training",), "test": ("val", "valid", "validation", "testing")}
MARGIN = 8 / 7  # what is kept of a photograph has 256 pixels where networks take 224
PHOTOGRAPH = 64  # pixels from which on networks take photographs


def stored_size(resolution: int) -> int:
    """The side in pixels at which images of a folder are kept for networks that take this resolution."""
    return round(resolution * MARGIN) if resolution >= PHOTOGRAPH else resolution


def dataset_classes(dataset: dict) -> int:
    """The number of classes of the configured dataset; an image folder's are counted. Raises InputError."""
    if dataset["name"] in CLASSES:
        return CLASSES[dataset["name"]]
    folder = Path(dataset["folder"])
    folders, wrong = _classes(folder)
    if wrong:
        raise InputError(refusal(folder, wrong))
    return len(folders["train"])


def prepared(folder: Path, source: dict) -> dict | None:
    """The description of the dataset in this folder; None if there is none, or one of another source."""
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        return description if source.items() <= description["source"].items() else None
    except (OSError, KeyError, ValueError):
        return None


@dataclass
class Survey:
    """Classes of an image folder by name; by split the files, the label of each, and what is no image, by kind of file.

    `deep`: by split the classes with folders of their own. `wrong`: why it cannot be used, in phrases.
    """

    classes: list[str]
    wrong: list[str]
    files: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, list[int]] = field(default_factory=dict)
    left_out: dict[str, Counter] = field(default_factory=dict)
    deep: dict[str, list[str]] = field(default_factory=dict)


def survey(folder: Path) -> Survey:
    """Look through an image folder; no image is opened. What is in hidden files and folders does not count."""
    from PIL import Image  # what starts with every call does not wait for it

    folders, wrong = _classes(folder)
    found = Survey(sorted(folders["train"] | folders["test"]), wrong)
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    for split, by_class in folders.items():
        files, labels, left_out, deep = [], [], Counter(), []
        for label, name in enumerate(found.classes):
            images, others, has_folders = _files(by_class.get(name, []), known)
            if name in by_class and not images:
                wrong.append(f"{split}/{name} holds no image{listed(others)}")
            files += images
            labels += [label] * len(images)
            left_out += others
            deep += [name] if has_folders else []
        found.files[split], found.labels[split], found.left_out[split], found.deep[split] = files, labels, left_out, deep
    return found


def refusal(folder: Path, wrong: list[str]) -> str:
    """A sentence with all that is wrong with an image folder."""
    return (
        f"dataset.folder is {str(folder)!r}, but must hold train/ and test/, in both a folder for each class with images: "
        + "; ".join(wrong)
    )


def listed(kinds: Counter) -> str:
    """A count by kind of file, in words."""
    return ": " + ", ".join(f"{count} × {kind}" for kind, count in (+kinds).most_common()) if +kinds else ""


def _classes(folder: Path) -> tuple[dict[str, dict[str, list[Path]]], list[str]]:
    """By split the folders of each class, and what is wrong with them.

    Names are compared composed (NFC): file systems differ in how they keep an ä.
    """
    wrong, folders = [], {}
    for split, others in SPLITS.items():
        folders[split], fault = _class_folders(folder, split, others)
        wrong += fault
    if not wrong:
        for split, other in (("train", "test"), ("test", "train")):
            if lacking := sorted(folders[other].keys() - folders[split].keys()):
                wrong.append(f"{split}/ has no folder for {', '.join(lacking)}, but {other}/ has")
    if len(folders["train"]) == 1 and list(folders["train"]) != ["train"]:
        [name] = folders["train"]
        wrong.append(f"{name} is the only class, but there is nothing to tell it from: each class needs a folder")
    return folders, wrong


def _class_folders(folder: Path, split: str, others: tuple[str, ...]) -> tuple[dict[str, list[Path]], list[str]]:
    """The class folders of a split by composed name, and what is wrong with them."""
    if not (folder / split).is_dir():
        instead = next((f", but {name}/: rename it" for name in others if (folder / name).is_dir()), "")
        return {}, [f"there is no {split}/{instead}"]
    found: dict[str, list[Path]] = {}
    for entry in sorted((folder / split).iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            found.setdefault(unicodedata.normalize("NFC", entry.name), []).append(entry)
    if not found:
        return {}, [f"{split}/ holds no folder"]
    if list(found) == [split]:
        return {}, [f"{split}/ holds {split}/ and no class: that is a folder too many"]
    return found, []


def _files(folders: list[Path], known: set[str]) -> tuple[list[str], Counter, bool]:
    """The image files below these folders, what else is there by kind of file, and whether there are folders."""
    images, others, has_folders = [], Counter(), False
    for folder in folders:
        for place, inner, names in os.walk(folder):
            others["hidden"] += sum(one.startswith(".") for one in [*names, *inner])
            inner[:] = sorted(one for one in inner if not one.startswith("."))
            has_folders = has_folders or bool(inner)
            for name in sorted(one for one in names if not one.startswith(".")):
                suffix = os.path.splitext(name)[1].lower()
                if suffix in known:
                    images.append(os.path.join(place, name))
                else:
                    others[suffix or "no suffix"] += 1
    return images, others, has_folders
