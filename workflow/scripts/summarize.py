#!/usr/bin/env python3
"""Print what the searches have found: architecture, predicted latency, MACs, parameters, accuracy, and the files made."""

import argparse
import json
from pathlib import Path

from fbnet.runtime import run


def main(arguments: argparse.Namespace) -> None:
    results = arguments.results
    for path in sorted((results / "modeldef").glob("*.json")):
        search = path.stem
        document = json.loads(path.read_text())
        name, found = next(iter(document["architectures"].items()))
        print(f"\n{name}: the most probable architecture of search {search}")
        print(f"  operators           {_wrapped(found['ops'])}")
        print(f"  predicted latency   {found['latency_us']:.0f} µs")
        print(f"  MACs                {found['macs'] / 1e6:.1f} M")
        print(f"  parameters          {found['params'] / 1e6:.2f} M")
        if found["ops"].split(" ") == document["provenance"]["ops"]:
            accuracy = document["provenance"]["top1"]
            print(f"  accuracy            {accuracy:.1%} on theta's images, as a sub-network of the supernet (not retrained)")
        files = [path.with_suffix(".py"), path, results / "architectures" / f"{search}.tsv"]
        files += sorted((results / "models").glob(f"{search}.*"))
        files += [results / "search" / search / name for name in ("supernet.pt", "history.tsv", "theta.tsv")]
        print("  files               " + "\n                      ".join(map(str, files)))


def _wrapped(ops: str) -> str:
    names = ops.split(" ")
    return "\n                      ".join(" ".join(names[start : start + 6]) for start in range(0, len(names), 6))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the results")
    run(parser, main)
