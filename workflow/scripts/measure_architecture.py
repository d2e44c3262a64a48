#!/usr/bin/env python3
"""Measure the latency of architectures end to end on this machine, and rescale it to that of the latency table."""

import argparse
from pathlib import Path

import numpy as np

from fbnet.latency.machine import Watch, take_device_of
from fbnet.latency.profiling import measure_networks
from fbnet.latency.table import tsv
from fbnet.latency.target import add_options, from_options
from fbnet.latency.validation import draw
from fbnet.runtime import Progress, log, run, write_text
from fbnet.space import read_architectures, read_space

REFERENCES = 8  # random networks, always the same: by which factor the machine is slower than its table during a measurement
COLUMNS = ["name", "ops", "predicted_us", "measured_us", "latency_us", "other_us"]


def main(arguments: argparse.Namespace) -> None:
    space, target = read_space(arguments.space), from_options(arguments)
    table, about = take_device_of(arguments.table, space, arguments.classes, target)
    rows = read_architectures(arguments.architectures, space)
    architectures = [row["ops"] for row in rows]
    references = [ops for ops, _ in draw(table, REFERENCES, seed=2)]
    other = architectures if target.is_eager_on_cpu else []  # what the line that keeps memory brings, or its lack takes
    beside = f", and the architectures once more with allocator {target.other_allocator}" if other else ""
    log.info(
        "Measuring %d architectures and %d references%s, %d rounds.",
        *(len(architectures), len(references), beside, arguments.runs),
    )
    watch = Watch(about.get("gpu"))
    networks = architectures + references
    measured = measure_networks(
        *(space, arguments.classes, target, networks, arguments.runs),
        progress=lambda rounds: Progress(rounds, desc="measure", unit="round"),
        other=other,
    )
    us, other_us = measured.us[0][: len(networks)], measured.us[0][len(networks) :].tolist() or [None] * len(rows)
    predicted = np.array([table.predict(ops) for ops in networks])
    scale = float(np.median((us / predicted)[len(architectures) :]))
    found = [
        {"name": row["name"], "ops": " ".join(row["ops"])}
        | {"predicted_us": predicted_us, "measured_us": measured_us, "latency_us": measured_us / scale, "other_us": other_us}
        for row, predicted_us, measured_us, other_us in zip(rows, predicted.tolist(), us.tolist(), other_us, strict=False)
    ]
    header = {"space": space.name, "level": f"{scale:.4f}", "references": str(len(references)), "runs": str(arguments.runs)}
    header |= target.settings() | about | watch.report(measured.variability)
    write_text(arguments.out, tsv(found, COLUMNS, header))
    for row in found:
        log.info(
            "%s: %.0f µs predicted, %.0f µs measured, %.0f µs measured and rescaled.",
            *(row["name"], row["predicted_us"], row["measured_us"], row["latency_us"]),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=Path, required=True, help="what to measure (TSV): name, ops")
    parser.add_argument("--table", type=Path, required=True, help="latency table (TSV), made with the same settings")
    parser.add_argument("--space", required=True, help="search space: a name, a YAML file, or JSON")
    parser.add_argument("--classes", type=int, default=10, help="number of classes of the last layer")
    add_options(parser)
    parser.add_argument("--runs", type=int, default=30, help="timed rounds over all of them")
    parser.add_argument("--out", type=Path, required=True, help="the measurement to write (TSV)")
    run(parser, main)
