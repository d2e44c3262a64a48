"""docs/outputs.md and docs/troubleshooting.md: the files and columns of a run, and what the software says, as they are."""

import re
from pathlib import Path

from conftest import ROOT


def described() -> dict[str, dict[str, bool]]:
    """For each TSV file of docs/outputs.md its columns, and whether they are there in some cases only."""
    files: dict[str, dict[str, bool]] = {}
    columns: dict[str, bool] = {}
    for line in (ROOT / "docs/outputs.md").read_text(encoding="utf-8").splitlines():
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) != 4:
            continue
        for path in re.findall(r"`([^`]+\.tsv)`", cells[0]):
            columns = files[path] = {}
        columns |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[1]), re.search(r"\bonly (after|with|of)\b", cells[3]) is not None)
    return files


def check(results: Path) -> set[str]:
    """Hold each TSV file of a run against its description; the descriptions that were of use."""
    files, used = described(), set()
    for path in results.rglob("*.tsv"):
        name = path.relative_to(results).as_posix()
        name = re.sub(r"^latency/([^/]+)/(accepted|measured|before).tsv$", r"latency/\1.tsv", name)
        name = name.replace("/learned.tsv", "/entrants.tsv")
        name = re.sub(r"^race/.*/round_\d+/\d+/", "training/some/seed_0/", name)
        # Of several that fit, as evaluation/{search}.supernet.tsv, the longest names most.
        [described_as, *_] = sorted((key for key in files if fits(key, name)), key=len, reverse=True)
        lines = path.read_text(encoding="utf-8").splitlines()
        found = next(line for line in lines if not line.startswith("#")).split("\t")
        columns = files[described_as]
        assert set(found) <= set(columns), path
        assert {column for column, sometimes in columns.items() if not sometimes} <= set(found), path
        used.add(described_as)
    return used


def fits(pattern: str, name: str) -> bool:
    return re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(pattern)), name) is not None


def test_every_column_of_a_finished_run_is_described(finished_workflow):
    assert len(check(finished_workflow.folder / "results")) == 6


def test_every_column_of_an_evaluation_is_described(evaluated_workflow):
    used = check(evaluated_workflow.folder / "results")
    assert {"evaluation/summary.tsv", "evaluation/ranking.tsv", "evaluation/devices.tsv", "choice/{search}.tsv"} <= used
