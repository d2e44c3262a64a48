#!/usr/bin/env python3
"""Print what the searches have found: architecture, predicted latency, MACs, parameters, accuracy, and the files made."""

import argparse
from pathlib import Path

import pandas as pd
from fbnet.runtime import run


def main(arguments: argparse.Namespace) -> None:
    results = arguments.results
    for path in sorted((results / "modeldef").glob("*.py")):
        search = path.stem
        found = pd.read_csv(results / "architectures" / f"{search}.tsv", sep="\t").iloc[0]
        history = pd.read_csv(results / "search" / search / "history.tsv", sep="\t")
        judged = history[history.phase == "argmax"].iloc[-1]
        theta = pd.read_csv(results / "search" / search / "theta.tsv", sep="\t", dtype={"layer": str})
        final = theta[theta.epoch == theta.epoch.max()]
        argmax = final.loc[final.groupby("layer", sort=False).theta.idxmax()].op
        print(f"\n{found['name']}: the most probable architecture of search {search}")
        print(f"  operators           {_wrapped(found.ops)}")
        print(f"  predicted latency   {found.latency_us:.0f} µs")
        print(f"  MACs                {found.macs / 1e6:.1f} M")
        print(f"  parameters          {found.params / 1e6:.2f} M")
        if " ".join(argmax) == found.ops:
            print(f"  accuracy            {judged.top1:.1%} on theta's split, as a sub-network of the supernet (no retraining)")
        files = [path, path.with_suffix(".json"), results / "architectures" / f"{search}.tsv"]
        files += [results / "search" / search / name for name in ("supernet.pt", "history.tsv", "theta.tsv")]
        print("  files               " + "\n                      ".join(map(str, files)))


def _wrapped(ops: str) -> str:
    names = ops.split(" ")
    return "\n                      ".join(" ".join(names[start : start + 6]) for start in range(0, len(names), 6))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the results")
    run(parser, main)
