#!/usr/bin/env python3
"""Draw what searches have chosen as fronts: accuracy inside the supernet against latency, predicted and measured."""

import argparse
from pathlib import Path

import pandas as pd

from fbnet.report.front_plot import front
from fbnet.report.tables import count, positive, read_tsv, share, word
from fbnet.runtime import log, replacing, run

CHOICE = {"what": word, "ops": word, "latency_us": positive, "macs": count, "params": count, "supernet_top1": share}


def main(arguments: argparse.Namespace) -> None:
    rows = []
    for name, method, target, choice, *measurement in arguments.search:
        chosen = read_tsv(Path(choice), CHOICE)[0]
        row = {"search": name, "method": method, "target": target, "ops": chosen["ops"], "macs": chosen["macs"]}
        row |= {"params": chosen["params"], "predicted_us": chosen["latency_us"], "measured_us": None}
        for path in measurement:
            taken = pd.read_csv(path, sep="\t", comment="#")
            row["measured_us"] = float(taken.loc[taken["ops"] == chosen["ops"], "measured_us"].iloc[0])
        rows.append(row | {"supernet_top1": chosen["supernet_top1"]})
    with replacing(arguments.out, arguments.picture) as (out, picture):
        pd.DataFrame(rows).to_csv(out, sep="\t", index=False, float_format="%.6f")
        front(rows, picture)
    log.info("%d networks on %d targets: %s", len(rows), len({row["target"] for row in rows}), arguments.picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--search",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME METHOD TARGET CHOICE", "MEASUREMENT"),
        help="a search, its table of explain_choice, and its measurement, if any",
    )
    parser.add_argument("--out", type=Path, required=True, help="the table to write (TSV)")
    parser.add_argument("--picture", type=Path, required=True, help="the picture to write (.svg, .png, .pdf)")
    run(parser, main)
