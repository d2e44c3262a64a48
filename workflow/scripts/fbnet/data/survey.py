"""What is known of a dataset before it is prepared: its classes, and how many images it has."""

import unicodedata
from pathlib import Path

from fbnet.errors import InputError

TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1_437}
CLASSES = {"cifar10": 10, "digits": 10}
# The halves of an image folder, and what others call them.
SPLITS = {"train": ("training",), "test": ("val", "valid", "validation", "testing")}


def dataset_classes(dataset: dict) -> int:
    """The number of classes of the configured dataset; an image folder's are counted. Raises InputError."""
    if dataset["name"] in CLASSES:
        return CLASSES[dataset["name"]]
    return len(image_classes(Path(dataset["folder"])))


def image_classes(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The classes of an image folder by name, and of each the folders in `train` and in `test`.

    Names are compared composed (NFC): file systems differ in how they keep an ä. Raises InputError, with all that is wrong.
    """
    wrong, folders = [], {}
    for split, others in SPLITS.items():
        folders[split], fault = _class_folders(folder, split, others)
        wrong += fault
    if not wrong:
        for split, other in (("train", "test"), ("test", "train")):
            if lacking := sorted(folders[other].keys() - folders[split].keys()):
                wrong.append(f"{split}/ has no folder for {', '.join(lacking)}, but {other}/ has")
        if len(folders["train"]) == 1:
            [name] = folders["train"]
            wrong.append(f"{name} is the only class, but there is nothing to tell it from: each class needs a folder")
    if wrong:
        raise InputError(
            f"dataset.folder is {str(folder)!r}, but must hold train/ and test/, in both a folder for each class: "
            + "; ".join(wrong)
        )
    return {name: {split: folders[split][name] for split in SPLITS} for name in sorted(folders["train"])}


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
