#!/usr/bin/env python3
"""Write what the documents do not say by themselves: configuration.md from the schema, and figures that benchmarks have written.

    python docs/pages.py         # writes; a test compares

What a key means stands in config.yaml, beside its default. README.md has a table between `<!-- front -->` and `<!-- end -->`.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import pandas as pd
import yaml

from fbnet.config import allowed, resolved
from fbnet.runtime import write_text

ROOT = Path(__file__).parents[1]
INTRODUCTION = """# Configuration

Made by `docs/pages.py` from `workflow/schemas/config.schema.yaml` and the comments of `config.yaml`.

`config.yaml` is the full CIFAR-10 search. A file given with `--configfile` replaces it, and is not merged with it: what it
leaves out has the default below. Single keys go on the command line, after all targets:
`--config 'search={epochs: 30, loss: {beta: 1.2}}'`. Paths may begin with `~`. A wrong value stops everything before the first
job, with a sentence that names the key. `examples/` has configurations to copy.
"""


def comments(text: str) -> dict[str, str]:
    """What the comments of a YAML file say, by the dotted path of the key that they follow."""
    found, path = {}, []
    for line in text.splitlines():
        match = re.match(r"( *)(\w+):([^#]*)(?:# (.*))?", line)
        if match:
            path = [*path[: len(match[1]) // 2], match[2]]
            if match[4]:
                found[".".join(path)] = match[4]
    return found


def configuration() -> str:
    """The page on config.yaml: a section for each key of the top, a row for each below."""
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
    meanings = comments((ROOT / "config.yaml").read_text(encoding="utf-8"))
    alone, sections = [], []
    for key, value in schema["properties"].items():
        section, below = resolved(value, schema["$defs"]), {}
        if key == "searches":
            alone.append(_row(key, section, meanings[key]))
            continue
        path, shown = ("latency.cpu", "latency.{name}") if key == "latency" else (key, key)
        if key == "latency":
            section = resolved(section["additionalProperties"], schema["$defs"])
        _below(section, shown, below, schema["$defs"])
        if not below:
            alone.append(_row(key, section, meanings[key]))
            continue
        rows = [_row(name, part, _meaning(name.replace(shown, path, 1), meanings)) for name, part in below.items()]
        about = meanings.get(key)
        sections.append("\n\n".join([f"## {key}", *([f"{about[0].upper()}{about[1:]}."] if about else []), _table(rows)]))
    return "\n".join([INTRODUCTION, f"## At the top\n\n{_table(alone)}", *sections])


def _below(schema: dict, name: str, found: dict[str, dict], definitions: dict) -> None:
    for key, part in schema.get("properties", {}).items():
        part = resolved(part, definitions)
        if "properties" in part:
            _below(part, f"{name}.{key}", found, definitions)
        else:
            found[f"{name}.{key}"] = part


def _meaning(name: str, meanings: dict[str, str]) -> str:
    if name in meanings:
        return meanings[name]
    if name == "latency.cpu.table":
        return "a table made elsewhere; beside it only batch, dtype, which it must not contradict, and validation"
    if name == "latency.cpu.validation":
        return "beside a table made elsewhere: what whole networks take there"
    return meanings["search" + name.removeprefix("train")]  # what both have is explained once


def _row(name: str, schema: dict, meaning: str) -> str:
    default = yaml.safe_dump(schema.get("default"), default_flow_style=True).splitlines()[0]
    values = "null, or a mapping" if name == "search.front" else allowed(schema)  # `fbnet.sweep` takes it apart before
    cells = [f"`{name}`", f"`{default}`" if "default" in schema else "–", values, meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(rows: list[str]) -> str:
    return "\n".join(["| key | default | may be | meaning |", "|---|---|---|---|", *rows, ""])


def front() -> str:
    """Accuracy within each of eight budgets: of what the supernet prefers, and of what costs nothing or the same."""
    summary = pd.read_csv(ROOT / "benchmarks/figures/front.tsv", sep="\t")
    summary["column"] = summary.kind.where(summary.kind != "rule", summary.rule)
    accuracies = 100 * summary.pivot_table("top1", "budget_us", "column")
    columns = {"found": "one-shot search", "macs": "most MACs", "log_macs": "largest Σ log MACs"}
    columns |= {"random_search": "random search"}
    lines = [f"| within | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for budget, row in [*accuracies.iterrows(), ("mean", accuracies.mean())]:
        cells = [budget if budget == "mean" else f"{budget:.0f} µs", *(f"{row[key]:.1f} %" for key in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def readme() -> str:
    """README.md with its tables as the files of figures have them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"(<!-- front -->\n).*?(<!-- end -->)", lambda match: f"{match[1]}\n{front()}\n{match[2]}", text, flags=re.S)


PAGES = {"docs/configuration.md": configuration, "README.md": readme}

if __name__ == "__main__":
    for path, page in PAGES.items():
        write_text(ROOT / path, page())
