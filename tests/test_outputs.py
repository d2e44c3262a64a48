"""What documents say of results: the columns of files, how images are prepared, and the messages of the software."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conftest import ROOT
from fbnet.data.batches import Batches
from fbnet.data.dataset import ARRAYS, Dataset
from fbnet.data.photograph import fitted
from fbnet.data.survey import stored_size


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


def test_images_are_prepared_as_the_page_says(tmp_path):
    """The function of docs/architectures.md against what an evaluation gets from the same file."""
    page = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")
    [function] = [body for body in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "def preprocessed" in body]
    found: dict = {}
    exec(function, found)
    noise = np.random.default_rng(0).integers(0, 255, (50, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # turned
    for name, side, resolution in (("a.png", 40, 32), ("b.jpg", 700, 32), ("c.jpg", 700, 224), ("d.jpg", 900, 64)):
        Image.fromarray(noise).resize((2 * side, side)).save(tmp_path / name, exif=exif)
        size = stored_size(resolution)
        stored, labels = fitted(str(tmp_path / name), size)[None], np.zeros(1, dtype=np.int64)
        about = {"mean": (0.49, 0.48, 0.44), "std": (0.24, 0.25, 0.26), "resolution": resolution}
        arrays = dict(zip(ARRAYS, (stored, labels, stored, labels), strict=True))
        dataset = Dataset("some", ("one",), **about, **arrays)
        [(expected, _)] = Batches(dataset, np.arange(1), 1, torch.device("cpu")).plain()
        (tmp_path / "dataset.json").write_text(json.dumps(about | {"size": size}), encoding="utf-8")
        images = found["preprocessed"](tmp_path / name, tmp_path / "dataset.json")
        assert images.dtype == np.float32
        np.testing.assert_allclose(images, expected.numpy(), atol=1e-6, err_msg=name)


def said() -> list[str]:
    """What the software may say: all texts in its sources, … for what is filled in."""

    def text(node: ast.AST) -> str:
        match node:
            case ast.Constant(value=str(value)):
                return re.sub(r"%[.+\d]*[sdfr]", "…", value)
            case ast.JoinedStr(values=parts):
                return "".join(map(text, parts))
            case _:
                return "…"

    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "workflow/scripts").rglob("*.py")]
    return [text(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)]


def messages() -> list[str]:
    """The messages of docs/troubleshooting.md that are ours: neither Snakemake's nor the system's."""
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    ours = page.partition("\n## Configuration\n")[2]
    return [found for found in re.findall(r"^\| `([^`]+)`", ours, re.M) if found != "No space left on device"]


def test_every_message_that_is_explained_is_one_that_we_give():
    texts = said()
    for message in messages():
        pattern = re.compile(".*".join(re.escape(part.strip(" …")) for part in message.split("…")), re.DOTALL)
        assert any(pattern.search(text) for text in texts), message
    assert len(messages()) > 40
