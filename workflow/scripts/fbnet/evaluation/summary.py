"""What the searches have found, as the workflow prints it at its end; Snakemake's own environment must do for it."""

import csv
import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fbnet.errors import InputError
from fbnet.latency import device_of, read_header


def print_summary(results: Path, largest_error: float) -> None:
    """Print architecture, predicted latency (µs), MACs, parameters, accuracy and the files made, and what the tables are worth.

    A latency table whose mean error is larger than `largest_error` is warned of. Raises InputError for a file that is damaged.
    """
    for path in sorted((results / "modeldef").glob("*.json")):
        with _whole(path):
            _print_found(path, results)
    for path in sorted((results / "latency").glob("*.validation.tsv")):
        with _whole(path):
            _print_table(path, largest_error)
    findings = results / "evaluation/findings.tsv"
    if findings.is_file():
        print("\nEvaluation: trained from scratch, measured, and held against baselines")
        with findings.open(newline="") as file:
            for finding in csv.DictReader(file, delimiter="\t"):
                about = "" if finding["about"] == "all" else f"{finding['about']}: "
                print(_filled(f"{'WARNING: ' if finding['kind'] == 'warning' else ''}{about}{finding['text']}", "  "))
        print(f"  files               {results / 'report.html'}\n                      {findings.with_name('summary.tsv')}")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path} is not as it was made: delete it, and the next call makes it again") from None


def _print_found(path: Path, results: Path) -> None:
    search = path.stem
    document = json.loads(path.read_text())
    [(name, found), *_] = document["architectures"].items()
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


def _print_table(path: Path, largest_error: float) -> None:
    found = read_header(path)
    print(f"\nLatency table {path.name.removesuffix('.validation.tsv')} ({device_of(found)})")
    print(_filled(found["result"], "  "))
    if float(found["mean_error"]) > largest_error:
        allowed = f"more than the {largest_error:.0%} allowed (validation.error)"
        print(_filled(f"WARNING: {allowed}: do not trust its latencies; measure again on a quiet machine", "  "))
    for what, header in (
        ("measurement", read_header(path.with_name(path.name.replace(".validation", "")))),
        ("validation", found),
    ):
        if "disturbed" in header:
            print(_filled(f"WARNING: the machine was disturbed during its {what}: {header['disturbed']}", "  "))
    print(f"  files               {path}\n                      {path.with_suffix('.svg')}")


def _wrapped(ops: str) -> str:
    names = ops.split(" ")
    return "\n                      ".join(" ".join(names[start : start + 6]) for start in range(0, len(names), 6))


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent)
