"""Measuring again: when the table in use stays, and when the new one takes its place."""

import random

import pytest

from conftest import write_table
from fbnet.errors import InputError
from fbnet.latency.acceptance import CHOICES, compare, settle
from fbnet.latency.table import COLUMNS
from fbnet.space import read_space

SPACE = read_space("fbnet_cifar")
HEADER = {"norm": "bn", "engine": "torch", "threads": "1", "machine": "a chip", "variability": "0.01"}


def table(path, factor=lambda cell: 1.0, iqr=5.0, runs=100, space=SPACE, **header):
    """A table whose entries take 100 to 200 µs times a factor."""
    rng = random.Random(0)
    cost = {cell.build_key: rng.uniform(100, 200) for cell in space.cells(10)}

    def change(rows):
        return [[*row[:-2], iqr, runs] for row in rows]

    write_table(path, space, latency_us=lambda cell: cost[cell.build_key] * factor(cell), change=change)
    lines = "".join(f"# {key}: {value}\n" for key, value in (HEADER | header).items())
    path.write_text(lines + path.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def layers(*numbers, factor):
    return lambda cell: factor if cell.layer in map(str, numbers) else 1.0


@pytest.mark.parametrize(
    ("new", "keeps", "reason"),
    [
        ({}, True, "it agrees"),
        ({"factor": lambda cell: 1.08}, True, "it agrees"),
        ({"factor": lambda cell: 0.93}, True, "it agrees"),
        ({"factor": lambda cell: 1.2}, False, "does not agree"),
        ({"factor": lambda cell: 0.8}, False, "does not agree"),
        (
            {"factor": lambda cell: 1.2, "variability": "0.08"},
            True,
            "it agrees",
        ),  # nobody knows the scale better
        ({"factor": layers(3, factor=1.5)}, True, "it agrees"),  # 9 of 201 entries
        ({"factor": layers(3, 8, factor=1.5)}, False, "does not agree"),
        ({"factor": layers(3, 8, factor=0.7)}, False, "does not agree"),
        ({"factor": layers(3, 8, factor=1.5), "iqr": 200.0, "runs": 10}, True, "it agrees"),  # noise
        ({"factor": layers(3, 8, factor=1.5), "disturbed": "a build ran"}, True, "was disturbed: a build ran"),
        ({"threads": "2"}, False, "the table in use is of threads 1, now 2"),
        ({"machine": "another chip"}, False, "machine a chip, now another chip"),
        ({"processor": "a host"}, False, "processor unknown, now a host"),
        ({"dtype": "float32"}, False, "dtype unknown, now float32"),
        ({"space": read_space("fbnet_32")}, False, "other entries"),
    ],
)
def test_the_table_in_use_stays_if_the_new_one_says_the_same(tmp_path, new, keeps, reason):
    old, new = table(tmp_path / "old.tsv"), table(tmp_path / "new.tsv", **new)
    verdict = compare(old, new, "compare")
    assert verdict.keeps == keeps, verdict
    assert reason in verdict.reason
    comparable = "table in use is of" not in verdict.reason
    assert (verdict.drift is not None) == comparable
    assert compare(old, new, "accept").keeps is False
    if comparable:
        assert compare(old, new, "refuse").keeps is True
    else:
        with pytest.raises(InputError, match="new_measurement is 'refuse', but the table in use is of"):
            compare(old, new, "refuse")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("latency_us", "fast", "latency_us is 'fast', but must be a number of µs"),
        ("iqr_us", "", "has '' where a number must be"),
        ("runs", "many", "has 'many' where a number must be"),
    ],
)
def test_a_broken_table_is_named(tmp_path, column, value, message):
    old, new = table(tmp_path / "old.tsv"), table(tmp_path / "new.tsv")
    lines = old.read_text(encoding="utf-8").splitlines()
    cells = lines[-1].split("\t")
    cells[COLUMNS.index(column)] = value
    old.write_text("\n".join([*lines[:-1], "\t".join(cells)]), encoding="utf-8")
    with pytest.raises(InputError, match=rf"old\.tsv.* {message}"):
        compare(old, new, "compare")


def settled(tmp_path, choice="compare", **settings):
    text = table(tmp_path / "new.tsv", **settings).read_text(encoding="utf-8")
    return text, settle(text, tmp_path / "cpu", choice)


def test_what_is_kept_and_recorded(tmp_path):
    history = tmp_path / "cpu"
    first, used = settled(tmp_path)
    assert used == first == (history / "accepted.tsv").read_text(encoding="utf-8")
    assert not (history / "drift.tsv").exists()

    second, used = settled(tmp_path, factor=lambda cell: 1.04)
    assert (
        used
        == first
        == (history / "accepted.tsv").read_text(encoding="utf-8")
        == (history / "before.tsv").read_text(encoding="utf-8")
    )
    assert (history / "measured.tsv").read_text(encoding="utf-8") == second

    third, used = settled(tmp_path, factor=lambda cell: 1.5)
    assert used == third == (history / "accepted.tsv").read_text(encoding="utf-8")
    assert (history / "before.tsv").read_text(encoding="utf-8") == first

    _, used = settled(tmp_path, choice="refuse")
    assert used == third
    fifth, used = settled(tmp_path, choice="accept", factor=lambda cell: 1.01)
    assert used == fifth
    record = [line.split("\t") for line in (history / "drift.tsv").read_text(encoding="utf-8").splitlines()]
    assert record[0] == ["date", "decision", "level", "allowed", "difference", "cells", "reason"]
    assert [row[1] for row in record[1:]] == ["kept", "replaced", "kept", "replaced"]
    assert [float(row[2]) for row in record[1:]] == pytest.approx([0.04, 0.5, -1 / 3, 1.01 / 1.5 - 1], abs=1e-3)
    assert {"compare", "accept", "refuse"} == set(CHOICES)


def test_deciding_by_hand(tmp_path, script):
    use = tmp_path / "cpu.tsv"
    none = script("decide_latency", "accept", use)
    assert none.returncode == 1
    assert "measure the target a second time" in none.stderr
    assert "Traceback" not in none.stderr

    first, _ = settled(tmp_path)
    second, _ = settled(tmp_path, factor=lambda cell: 1.5)
    use.write_text(second, encoding="utf-8")
    for decision, text in (("refuse", first), ("refuse", first), ("accept", second), ("refuse", first)):
        done = script("decide_latency", decision, use)
        assert done.returncode == 0, done.stderr
        assert use.read_text(encoding="utf-8") == text == (tmp_path / "cpu/accepted.tsv").read_text(encoding="utf-8")
