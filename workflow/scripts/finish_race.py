#!/usr/bin/env python3
"""End a race: the network that validates best in its last round, and how all did in each round."""

import argparse
from pathlib import Path

import pandas as pd
import torch

from fbnet.evaluation.trained import by_validation
from fbnet.runtime import log, replacing, run


def main(arguments: argparse.Namespace) -> None:
    entrants = pd.concat([pd.read_csv(path, sep="\t") for path in arguments.entrants]).set_index("name", drop=False)
    rows = []
    for number, paths in enumerate(arguments.round, 1):
        standing = by_validation(paths)
        for network in standing.values():
            entrant = entrants.loc[network["name"]]
            rows.append(
                {"round": number, "name": network["name"], "chosen_by": entrant["chosen_by"], "ops": entrant["ops"]}
                | {"latency_us": entrant["latency_us"], "epochs": network["epochs"]}
                | {"validation_top1": network["validation_top1"], "seconds": network["seconds"]}
            )
    winner = next(iter(standing.values()))
    found = entrants.loc[[winner["name"]]].assign(name=arguments.name)
    for key in ("epochs", "validation_top1", "test_top1"):
        found[key] = winner[key]
    with replacing(arguments.out, arguments.standing, arguments.network) as (out, standing, network):
        found.to_csv(out, sep="\t", index=False, float_format="%.6f")
        pd.DataFrame(rows).to_csv(standing, sep="\t", index=False, float_format="%.6f")
        torch.save(winner | {"name": arguments.name, "entrants": len(entrants), "chosen_by": found["chosen_by"].iloc[0]}, network)
    log.info(
        "Of %d architectures %s wins, chosen by %s: after %d epochs validation accuracy %.2f%%, test accuracy %.2f%%: %s",
        *(len(entrants), winner["name"], entrants.loc[winner["name"], "chosen_by"], winner["epochs"]),
        *(100 * winner["validation_top1"], 100 * winner["test_top1"], arguments.standing),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entrants", type=Path, nargs="+", required=True, help="all that took part (TSV)")
    round_help = "network.pt of all that took part in a round; once for each round, in order"
    parser.add_argument("--round", type=Path, nargs="+", action="append", required=True, metavar="FILE", help=round_help)
    parser.add_argument("--name", required=True, help="what the winner is called from now on")
    parser.add_argument("--out", type=Path, required=True, help="the winner as an architecture (TSV)")
    parser.add_argument("--standing", type=Path, required=True, help="how all did in each round (TSV), the best first")
    parser.add_argument("--network", type=Path, required=True, help="the winner as it was trained (network.pt)")
    run(parser, main)
