#!/usr/bin/env python3
"""Evaluate architectures with the weights that they inherit from a supernet: does it foretell which are better?"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.runtime import log, replacing, run
from fbnet.search import one_shot_accuracies, read_supernet
from fbnet.space import make_space, read_architectures


def main(arguments: argparse.Namespace) -> None:
    supernet, dataset = read_supernet(arguments.supernet), read_dataset(arguments.data)
    device, space = choose_device(arguments.threads, supernet["settings"]["gpu"]), make_space(supernet["space"])
    rows = [row for path in arguments.architectures for row in read_architectures(path, space)]
    top1 = one_shot_accuracies(supernet, dataset, [row["ops"] for row in rows], device)
    found = {"name": [row["name"] for row in rows], "ops": [" ".join(row["ops"]) for row in rows], "supernet_top1": top1}
    with replacing(arguments.out) as (out,):
        pd.DataFrame(found).to_csv(out, sep="\t", index=False, float_format="%.6f")
    least, most = 100 * np.min(top1), 100 * np.max(top1)
    log.info("One-shot accuracy of %d architectures: %.1f%% to %.1f%%: %s", len(rows), least, most, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt of train_supernet")
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared dataset; its test set is not touched")
    parser.add_argument("--architectures", type=Path, nargs="+", required=True, help="what to evaluate (TSV): name, ops")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--out", type=Path, required=True, help="the accuracies to write (TSV): name, ops, supernet_top1")
    run(parser, main)
