"""What a run ends with: derived architectures, the verdict on latency tables, findings, warnings, and what to call next."""

import csv
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fbnet.evaluation.derived import Derived, read_derived, undamaged
from fbnet.latency import device_of, hardly_differ, read_header, too_fast

MANY = 3  # searches, above which each is but a line of a table
Warned = tuple[str, str]  # what it is about, and a sentence
Command = Callable[[str], str]  # the call of Snakemake that makes a file, or what a rule makes


def print_summary(config: Mapping, command: Command) -> None:
    """Print what the searches of a resolved configuration have led to. Raises InputError for a file that is damaged."""
    results = Path(config["results"])
    derived = [found for search in config["searches"] if (found := read_derived(search, config))]
    runs = f"{config['evaluation']['trainings']} runs of {config['train']['epochs']} epochs"
    if len(derived) > MANY:
        _print_many(derived, results, runs, command)
    else:
        for architecture in derived:
            _print_one(architecture, results, runs, command)
    disturbed = [one for one in derived if one.disturbed]
    warnings = [(f"measurement of {one.search}", f"the machine was disturbed: {one.disturbed}") for one in disturbed]
    print()
    again = []
    for target, settings in config["latency"].items():
        if (table := results / f"latency/{target}.tsv").is_file():
            brought = "table" in settings
            doubts, is_shaky = _print_table(table, config["validation"]["error"], brought)
            warnings += doubts
            again += [table] if is_shaky and not brought else []
    findings, report = results / "evaluation/findings.tsv", results / "report.html"
    warnings += [(one.search, text) for one in derived for text in one.faults]
    if findings.is_file():
        print("\nEvaluation: networks trained, measured, and compared with baselines")
        warnings += _print_findings(findings)
    _print_warnings(warnings)
    for table in again:
        print(f"\nOnce it is quiet here, this measures the latency table {table.stem} again:\n    {command(str(table))} --force")
    if findings.is_file():
        print(f"\nNext: open {report}; all numbers stand in {findings.parent}/.")
    elif derived:
        print(f"\nNext: train ({runs} each), measure and compare what was derived with what costs nothing: {report}")
        print(f"    {command('make_report')}")


def _print_one(derived: Derived, results: Path, runs: str, command: Command) -> None:
    print(f"\nSearch {derived.search}: its derived architecture\n  {derived.compact}")
    measured = f"{derived.measured_us:.0f} µs measured" if derived.measured_us else "not measured"
    rescaled = f" ({derived.rescaled_us:.0f} µs rescaled to its table)" if derived.rescaled_us else ""
    print(f"  latency on {derived.target}: {derived.predicted_us:.0f} µs predicted, {measured}{rescaled}")
    if derived.budget_us:
        print(f"  latency budget: {derived.budget_us:.0f} µs ({derived.budget})")
    for limit in derived.limits:
        print(f"  {limit}")
    print(f"  size: {derived.macs / 1e6:.1f} M MACs, {derived.params / 1e6:.2f} M parameters")
    if derived.one_shot is not None:
        print(f"  one-shot accuracy: {derived.one_shot:.1%} on the architecture split, with inherited weights")
    if derived.test is not None:
        by = f", which it entered by {derived.chosen_by}" if derived.chosen_by else ""
        print(f"  test accuracy: {derived.test:.1%} after {derived.epochs} epochs of training, in the race that it has won{by}")
    elif derived.one_shot is None and not derived.trained:
        choice = results / f"choice/{derived.search}.tsv"
        print(f"  accuracy: not known yet; this tells the one-shot accuracy, and what else might have been chosen: {choice}")
        print(f"    {command(str(choice))}")
    if derived.trained:
        print(f"  trained by itself: {derived.trained}")
    trained, exported = (results / f"{folder}/{derived.search}.onnx" for folder in ("trained", "models"))
    model = trained if trained.is_file() else exported
    print(f"  model: {model}; its card: {model.with_suffix('.md')}; its MODEL_ARCH: {results / f'modeldef/{derived.search}.py'}")
    if model is exported:
        raced = derived.test is not None
        weights, how = ("those of the race", "from scratch ") if raced else ("the supernet's, not trained", "")
        print(f"  Its weights are {weights}. This trains it {how}({runs}) and exports {trained}:")
        print(f"    {command(str(trained))}")


def _print_many(derived: Sequence[Derived], results: Path, runs: str, command: Command) -> None:
    raced = all(one.test is not None for one in derived)
    rows = [
        (
            "search",
            "target",
            "predicted",
            "measured",
            "budget",
            "MACs",
            "parameters",
            f"{'test' if raced else 'one-shot'} accuracy",
        )
    ]
    for one in derived:
        latencies = [f"{us:.0f} µs" if us else "-" for us in (one.predicted_us, one.measured_us, one.budget_us)]
        known = one.test if raced else one.one_shot
        accuracy = "-" if known is None else f"{known:.1%}"
        rows.append((one.search, one.target, *latencies, f"{one.macs / 1e6:.1f} M", f"{one.params / 1e6:.2f} M", accuracy))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\nDerived architectures of {len(derived)} searches")
    for name, *cells in rows:
        print(f"  {name:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)), sep="  ")
    print(f"  models: {results}/models/SEARCH.onnx; architectures and cards: {results}/models/SEARCH.md")
    weights, how = ("those of the races", " from scratch") if raced else ("the supernets', not trained", "")
    print(f"  Their weights are {weights}. To train all{how} ({runs} each) and export them to {results}/trained/:")
    print(f"    {command('all_trained')}")


def _print_table(path: Path, allowed: float, brought: bool) -> tuple[list[Warned], bool]:
    """Print the verdict on a latency table, if it was validated; warnings about it, and whether to measure it again may help.

    `brought`: it is from elsewhere.
    """
    validation, about = path.with_suffix(".validation.tsv"), f"latency table {path.stem}"
    headers, warnings, is_shaky = {"measurement": read_header(path)}, [], False
    for doubt in (too_fast(path) if brought else None, hardly_differ(path)):
        if doubt:
            warnings.append((about, doubt))
    if missing := headers["measurement"].get("missing"):
        warnings.append((about, f"it tells nothing of {missing}: latencies and budgets are those of all else"))
    if validation.is_file():
        headers["validation"] = header = read_header(validation)
        with undamaged(validation):
            error, networks = float(header["mean_error"]), header["networks"]
        verdict = f"predicted within {error:.1%} in the mean over {networks} random networks, allowed {100 * allowed:.3g}%"
        print(f"Latency table {path.stem}: {verdict}: {'ok' if error <= allowed else 'too much'}\n{_filled(device_of(header))}")
        is_shaky = error > allowed
        if is_shaky:
            remedy = "measure again on a quiet machine" if not brought else "operators timed alone do not add up to networks"
            if header.get("allocator") == "plain":
                remedy += ", or with allocator: keep (docs/latency.md, Memory)"
            warnings.append((about, f"{verdict}: do not trust its latencies; {remedy}"))
    for what, header in headers.items():
        if "disturbed" in header:
            warnings.append((about, f"the machine was disturbed during its {what}: {header['disturbed']}"))
            is_shaky = True
    return warnings, is_shaky


def _print_findings(path: Path) -> list[Warned]:
    """Print the findings, but for warnings, which are returned."""
    warnings = []
    with undamaged(path), path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            about = "" if row["about"] == "all" else row["about"]
            if row["kind"] == "warning":
                warnings.append((about, row["text"]))
            else:
                print(_filled(f"{about}: {row['text']}" if about else row["text"]))
    return warnings


def _print_warnings(warnings: Sequence[Warned]) -> None:
    """Print warnings; those that differ but in their numbers are one entry, with the numbers of the first."""
    kinds: dict[str, dict[str, str]] = {}  # by text without numbers, and then by what it is about
    for about, text in warnings:
        kinds.setdefault(re.sub(r"[-+]?\d[\d.,]*", "0", text), {}).setdefault(about, text)
    count = sum(map(len, kinds.values()))
    print(f"\n{count or 'No'} warning{'' if count == 1 else 's'}")
    for alike in kinds.values():
        about, first = ", ".join(filter(None, alike)), next(iter(alike.values()))
        numbers = " (numbers of the first)" if len({*alike.values()}) > 1 else ""
        print(_filled(f"{about}{numbers}: {first}" if about else first))


def _filled(text: str, indent: str = "  ") -> str:
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
