"""How good architectures are with the weights that they inherit from a supernet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fbnet.data.batches import Batches, may_reside, split
from fbnet.data.dataset import Dataset
from fbnet.errors import InputError
from fbnet.network import cut_out
from fbnet.runtime import Progress
from fbnet.space import SearchSpace, make_space

BATCH = 250


def one_shot_accuracies(supernet: dict, dataset: Dataset, architectures: Sequence, device: torch.device) -> list[float]:
    """The accuracies in [0, 1] of architectures (operators) on the images that a supernet's weights have not learned from.

    `supernet` as `read_supernet` gives it. Raises InputError for a dataset of other classes.
    """
    space, classes, settings = make_space(supernet["space"]), supernet["classes"], supernet["settings"]
    if list(dataset.classes) != list(classes):
        raise InputError(f"the dataset {dataset.name} has other classes than the supernet was trained on")
    _, architecture_split = split(dataset.train_labels, settings["weight_share"], settings["seed"])
    on_device = may_reside(dataset.train_images, device)
    batches = Batches(dataset, architecture_split, min(BATCH, len(architecture_split)), device, on_device)
    weights = {name: value.to(device) for name, value in supernet["weights"].items()}
    bar = Progress(architectures, desc="one-shot accuracies", unit="architectures")
    return [float(accuracy(weights, space, ops, len(classes), batches)) for ops in bar]


def accuracy(weights: dict[str, Tensor], space: SearchSpace, ops, classes: int, batches: Batches) -> Tensor:
    """The one-shot accuracy [] in [0, 1] of an architecture with a supernet's weights, on their device."""
    network = cut_out(weights, space, ops, classes, batches.for_norms())
    with torch.no_grad():
        hits = [(network(images).argmax(1) == labels).float().sum() for images, labels in batches.plain()]
    return torch.stack(hits).sum() / len(batches.indices)
