"""A trained supernet on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fbnet.errors import InputError
from fbnet.runtime import replacing
from fbnet.space import SearchSpace
from fbnet.training.checkpoint import BROKEN, delete


def write_supernet(
    folder: Path, found: dict, thetas: Mapping[int, Sequence[Tensor]], space: SearchSpace, history: pd.DataFrame
) -> None:
    """Write supernet.pt with all that was `found`, theta.tsv with the `thetas` by epoch and history.tsv; delete the checkpoints.

    theta.tsv has the columns epoch (from 0), layer, op, theta and its softmax, probability; a row for each choice of a layer,
    whatever channels come in.
    """
    rows = []
    for epoch, theta in thetas.items():
        for layer, row in zip(space.layers, theta, strict=True):
            choices = {cell.choice: number for number, cell in enumerate(layer)}
            logits = row[list(choices.values())]
            columns = zip(choices, logits.tolist(), logits.softmax(0).tolist(), strict=True)
            rows += [(epoch, layer[0].layer, choice, *values) for choice, *values in columns]
    table = pd.DataFrame(rows, columns=["epoch", "layer", "op", "theta", "probability"])
    weights = {name: value.cpu().contiguous().clone() for name, value in found["weights"].items()}  # no views of one storage
    paths = [folder / name for name in ("supernet.pt", "theta.tsv", "history.tsv")]
    with replacing(*paths) as (supernet, theta, progress):
        torch.save(found | {"weights": weights}, supernet)
        table.to_csv(theta, sep="\t", index=False, float_format="%.6f")
        history.to_csv(progress, sep="\t", index=False, float_format="%.6g")
    delete(folder / "checkpoint.pt")


def read_supernet(path: Path) -> dict:
    """A trained supernet as train_supernet wrote it: `weights`, `theta`, `space`, `classes`, and where it came from.

    Raises InputError if the file is something else.
    """
    try:
        supernet = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not {"weights", "theta", "space", "classes"} <= supernet.keys():
            raise KeyError("theta")
    except BROKEN as error:
        raise InputError(f"{path} is no supernet that train_supernet wrote ({type(error).__name__}): train it again") from None
    return supernet
