#!/usr/bin/env python3
"""Write architectures as MODEL_ARCH entries: a Python file and a JSON with provenance, or appended to an existing file."""

import argparse
import json
from pathlib import Path

from fbnet.errors import InputError
from fbnet.provenance import code_hashes, file_hash
from fbnet.runtime import log, replacing, run, write_text
from fbnet.search import read_supernet
from fbnet.space import make_space, read_architectures
from fbnet.space.modeldef import append, check_names, entry, render

NUMBERS = {"log_prob": float, "latency_us": float, "macs": int, "params": int}
KNOWN = {"supernet_top1": float, "chosen_by": str, "epochs": int, "validation_top1": float, "test_top1": float}  # of some


def main(arguments: argparse.Namespace) -> None:
    supernet = read_supernet(arguments.supernet)
    space = make_space(supernet["space"])
    samples = read_architectures(arguments.architectures, space, () if arguments.append_to else NUMBERS)
    check_names(row["name"] for row in samples)
    entries = {row["name"]: entry(space, row["ops"]) for row in samples}
    if arguments.append_to:
        with arguments.append_to.open(newline="", encoding="utf-8") as file:
            text = file.read()
        write_text(arguments.append_to, append(text, entries))
        log.info("Added %s to %s.", ", ".join(entries), arguments.append_to)
        return

    document = {
        "architectures": {
            row["name"]: entries[row["name"]] | {"ops": " ".join(row["ops"])} | _columns(arguments.architectures, row)
            for row in samples
        },
        "provenance": {key: value for key, value in supernet.items() if key not in ("weights", "theta")}
        | {"supernet_sha256": file_hash(arguments.supernet), "export_code": code_hashes(Path(__file__))},
    }
    with replacing(arguments.out.with_suffix(".json"), arguments.out) as (as_json, as_python):
        as_json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        as_python.write_text(render(entries), encoding="utf-8")
    log.info("Definitions (MODEL_ARCH) of %s: %s and %s", ", ".join(entries), arguments.out, arguments.out.with_suffix(".json"))


def _columns(path: Path, row: dict) -> dict:
    try:
        return {key: kind(row[key]) for key, kind in (NUMBERS | KNOWN).items() if key in row}
    except ValueError as error:
        raise InputError(f"the architectures {path}, {row['name']}: {error}") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=Path, required=True, help="TSV of sample_architecture")
    parser.add_argument("--supernet", type=Path, required=True, help="supernet.pt that they were derived from")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="the Python file to write; the JSON stands beside it")
    where.add_argument("--append-to", type=Path, metavar="FILE", help="existing MODEL_ARCH file to add the entries to")
    run(parser, main)
