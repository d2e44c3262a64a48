#!/usr/bin/env python3
"""How good are searches, and what do their supernets know? Any space, data and set of methods, at equal time.

The configuration's `searches` are the methods, and those of --methods. With --minutes each gets as many epochs as take that long
here: some steps of it are timed. All else is the workflow's: searches, baselines, training runs and tables stay in the folder of
the results, so that a stop goes on, and another method costs only itself.

    python benchmarks/search_quality.py benchmarks/cifar10_cpu.yaml
    python benchmarks/search_quality.py examples/report.yaml --methods 'single_path: {sampling: single_path}' --minutes 2
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import pandas as pd
import yaml
from steps import a_search, random_images, stepping, wait

from fbnet.config import resolve
from fbnet.data import TRAINING_IMAGES
from fbnet.device import choose_device
from fbnet.errors import InputError
from fbnet.mappings import read_mapping
from fbnet.runtime import log, run, write_text
from fbnet.settings import of_method
from fbnet.space import SearchSpace

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
WARM, TIMED = 3, 12  # steps of each phase


def seconds_an_epoch(settings: dict, space: SearchSpace, images: int, threads: int) -> float:
    """What an epoch of a search takes here, both phases, from some steps on random images; its evaluation aside."""
    device = choose_device(threads, settings["gpu"])
    search = a_search(space, random_images(images, space.resolution), device, **settings)
    seconds = 0.0
    for phase, batches in search.batches.items():
        steps = stepping(search, phase)
        for _ in range(WARM):
            next(steps)
        wait(device)
        start = time.perf_counter()
        for _ in range(TIMED):
            next(steps)
        wait(device)
        seconds += (time.perf_counter() - start) / TIMED * len(batches)
    return seconds


def at_equal_time(config: dict, minutes: float, chosen: Path) -> dict:
    """The configuration with the epochs of each method set; those chosen before, for the same settings and time, stay.

    Raises InputError where the time is less than a method's warm-up and one epoch more.
    """
    resolved, space = resolve(config, SCHEMA)
    name = resolved["dataset"]["name"]
    if name not in TRAINING_IMAGES:
        raise InputError(
            f"--minutes is for datasets of known size ({', '.join(TRAINING_IMAGES)}), not {name}: set epochs yourself"
        )
    known = read_mapping(chosen, "chosen epochs") if chosen.is_file() else {}
    methods = {}
    for method, own in config["searches"].items():
        alone, _ = resolve(config | {"searches": {method: own}}, SCHEMA)
        first = next(iter(alone["searches"].values()))
        settings = {key: value for key, value in of_method(first).items() if key not in ("seed", "epochs")}
        of_rate = settings["weights"]["warmup_epochs"] or 0
        warmup = settings.get("warmup_epochs", of_rate)  # that of theta, where there is one
        key = json.dumps([settings, space.definition, minutes], sort_keys=True)
        if known.get(method, {}).get("for") != key:
            timed = settings | {"seed": 0, "epochs": warmup + 1}
            seconds = seconds_an_epoch(timed, space, TRAINING_IMAGES[name], resolved["threads"])
            known[method] = {"for": key, "epochs": round(60 * minutes / seconds), "seconds": seconds}
        epochs = known[method]["epochs"]
        log.info("%s: an epoch takes %.0f s, %d epochs %g minutes.", method, known[method]["seconds"], epochs, minutes)
        if epochs <= warmup:
            raise InputError(
                f"searches.{method}: {minutes:g} minutes are {epochs} epochs, but warmup_epochs is {warmup}: "
                f"give more --minutes, or less warm-up"
            )
        methods[method] = (own or {}) | {"epochs": epochs}
    write_text(chosen, yaml.safe_dump(known))
    return config | {"searches": methods}


def tables(evaluation: Path) -> str:
    """What was found, as Markdown: the order inside the supernets, and what was derived, from the tables in a folder."""
    summary, ranked, compared = (
        pd.read_csv(evaluation / f"{name}.tsv", sep="\t") for name in ("summary", "ranking", "comparisons")
    )
    ranked = ranked.merge(summary[["search", "method", "supernet_top1", "search_s"]].dropna(), on="search", how="left")
    networks = ranked["networks"].iloc[0] if len(ranked) else 0
    lines = [f"| {networks} networks ordered by | Kendall's τ | regret, points | one-shot accuracy of the derived | search |"]
    lines.append("|---|---|---|---|---|")
    for method, own in ranked.groupby("method", sort=False):
        lines.append(
            f"| supernet, {method} | {_all(own['tau'], 2)} | {_all(100 * own['regret'])} | {_all(100 * own['supernet_top1'])} % "
            f"| {_all(own['search_s'] / 60)} min |"
        )
    for row in ranked[ranked["by"] != "supernet"].to_dict("records"):
        tau = f"0 ± {row['tau_by_chance']:.2f}" if row["by"] == "chance" else f"{row['tau']:.2f}"
        lines.append(f"| {row['by']} | {tau} | {100 * row['regret']:.1f} | | |")
    lines += ["", "| within | method | derived | against | | difference at equal latency, 95 % |", "|---|---|---|---|---|---|"]
    for row in compared.to_dict("records"):
        lines.append(
            f"| {row['budget_us']:.0f} µs | {row['method']} | {row['top1']:.1%} (n = {len(row['networks'].split())}) "
            f"| {row['against']} (n = {row['others']}) | {row['other_top1']:.1%} "
            f"| {100 * row['difference']:+.1f} ± {100 * row['half_width']:.1f}, {row['verdict']} |"
        )
    return "\n".join(lines)


def _all(values: pd.Series, digits: int = 1) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def main(arguments: argparse.Namespace) -> None:
    config = read_mapping(arguments.config, "configuration")
    results = arguments.results or Path(config.get("results", "results"))
    methods = yaml.safe_load(arguments.methods) if arguments.methods else {}
    if not isinstance(methods, dict):
        raise InputError(
            f"--methods is {arguments.methods!r}, but must be searches by name, as 'single_path: {{sampling: single_path}}'"
        )
    config |= {"results": str(results), "searches": config.get("searches", {"fbnet": {}}) | methods}
    if arguments.minutes:
        config = at_equal_time(config, arguments.minutes, results / "epochs.yaml")
    path = results / "search_quality.yaml"
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    ranking = results / "evaluation/ranking.tsv"
    command = [sys.executable, "-m", "snakemake", str(ranking), "--cores", str(arguments.cores), "--configfile", str(path)]
    if code := subprocess.run([*command, *arguments.snakemake], cwd=ROOT).returncode:
        raise InputError(f"snakemake ended with code {code}, for a reason that it says above")
    print(f"\n{tables(ranking.parent)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a configuration whose searches are the methods to compare")
    parser.add_argument("--methods", help="more searches, as YAML by name; of the same name in place of the configuration's")
    parser.add_argument("--results", type=Path, help="folder of the results; default: the configuration's")
    parser.add_argument("--minutes", type=float, help="of each search; default: the epochs of the configuration")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--snakemake", nargs=argparse.REMAINDER, default=[], help="all that follows is for snakemake")
    run(parser, main)
