"""What is known of a dataset before it is prepared: its classes, and how many images it has."""

from pathlib import Path

from fbnet.errors import InputError

TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1_437}
CLASSES = {"cifar10": 10, "digits": 10}


def dataset_classes(dataset: dict) -> int:
    """The number of classes of the configured dataset; an image folder's are counted. Raises InputError."""
    if dataset["name"] in CLASSES:
        return CLASSES[dataset["name"]]
    return len(image_classes(Path(dataset["folder"]) / "train"))


def image_classes(folder: Path) -> list[str]:
    """The class folders in `train` or `test` of an image folder. Raises InputError if there is none."""
    entries = folder.iterdir() if folder.is_dir() else ()
    classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        there = "holds none" if folder.is_dir() else "is not there"
        raise InputError(
            f"dataset.folder is {str(folder.parent)!r}, but must hold train/ and test/ with a folder for each class: "
            f"{folder} {there}"
        )
    return classes
