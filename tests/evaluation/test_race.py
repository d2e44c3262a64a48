"""The race: who takes part, who goes on, and what the winner becomes."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from conftest import BUDGET, with_settings
from fbnet.errors import InputError
from fbnet.evaluation.trained import by_validation, nth_best


@pytest.fixture
def save_accuracy(tmp_path):
    """Write a network.pt that is nothing but its accuracy."""

    def save(name, validation_top1):
        path = tmp_path / f"{name}.pt"
        torch.save({"name": name, "weights": {}, "ops": [], "validation_top1": validation_top1, "data_sha256": ""}, path)
        return path

    return save


def test_the_best_in_validation_accuracy_come_first_and_equals_as_they_were(save_accuracy):
    paths = [save_accuracy(name, top1) for name, top1 in (("a", 0.5), ("b", 0.7), ("c", 0.5), ("d", 0.9))]
    assert [run["name"] for run in by_validation(paths).values()] == ["d", "b", "a", "c"]
    assert [nth_best(paths, place)["name"] for place in (1, 2, 3, 4)] == ["d", "b", "a", "c"]
    assert nth_best(paths, 1)["sha256"] != nth_best(paths, 2)["sha256"]
    for place in (0, 5):
        with pytest.raises(InputError, match=rf"place {place} is not one of the 4 networks"):
            nth_best(paths, place)


@pytest.fixture
def race(copy_of_finished):
    """A workflow whose search has a race: three architectures, one of them a rule's, two of which go on."""
    race = {"epochs": [2, 1], "rules": ["macs"], "start": "supernet"}
    copy_of_finished.configure(
        with_settings(searches={"first": BUDGET}, sample={"count": 2, "judged": 1, "method": "argmax"}, race=race)
    )
    return copy_of_finished


@pytest.mark.xdist_group("workflow")
def test_the_better_half_goes_on_and_the_winner_is_the_result(race):
    results = race.folder / "results"
    jobs = race.jobs()
    trained = [(wildcards["round"], wildcards["place"]) for rule, wildcards in jobs if rule == "train_entrant"]
    assert sorted(trained) == [("1", "1"), ("1", "2"), ("1", "3"), ("2", "1"), ("2", "2")]
    done = race()
    assert done.returncode == 0, done.stdout
    entrants = pd.read_csv(results / "race/first/entrants.tsv", sep="\t")
    assert entrants.name.tolist() == ["first_1", "first_2", "first_3"]
    assert entrants.chosen_by.tolist() == ["argmax", "argmax", "macs"]
    assert entrants.ops.nunique() == 3
    assert entrants.macs[2] == entrants.macs.max()  # no network takes two seconds
    standing = pd.read_csv(results / "race/first/race.tsv", sep="\t")
    first, second = (standing[standing["round"] == number] for number in (1, 2))
    assert (sorted(first.name), len(second)) == (sorted(entrants.name), 2)
    assert set(second.name) == set(first.sort_values("validation_top1", ascending=False, kind="stable").name[:2])
    assert (set(first.epochs), set(second.epochs)) == ({2}, {3})
    for rows in (first, second):
        assert rows.validation_top1.is_monotonic_decreasing
    [winner] = pd.read_csv(results / "architectures/first.tsv", sep="\t").to_dict("records")
    best = second.iloc[0]
    assert (winner["name"], winner["ops"], winner["epochs"]) == ("first", best.ops, 3)
    network = torch.load(results / "race/first/network.pt", weights_only=True)
    assert (network["name"], network["entrants"]) == ("first", 3)
    assert winner["test_top1"] == pytest.approx(network["test_top1"], abs=1e-6)
    exported = load_file(results / "models/first.safetensors")
    assert all(torch.equal(value, exported[name]) for name, value in network["weights"].items())
    card = (results / "models/first.md").read_text()
    assert "from the supernet's weights for 3 epochs with seed 1002: the winner in validation accuracy of a race among 3" in card
    entry = json.loads((results / "modeldef/first.json").read_text())["architectures"]["first"]
    assert entry["test_top1"] == winner["test_top1"]
    assert f"test accuracy: {winner['test_top1']:.1%} after 3 epochs of training, in the race" in done.stdout
    for place in (1, 2, 3):  # all start from the same supernet, whose weights they share
        run = torch.load(results / f"race/first/round_1/{place}/network.pt", weights_only=True)
        assert (run["supernet_sha256"] is None, run["before_sha256"]) == (False, None)
    assert race.planned() == set()

    # one training and the end are lost: it and what follows are made again, with the same outcome
    shutil.rmtree(results / "race/first/round_1/2")
    (results / "architectures/first.tsv").unlink()
    jobs = race.jobs("results/architectures/first.tsv")
    lost = [(wildcards["round"], wildcards["place"]) for rule, wildcards in jobs if rule == "train_entrant"]
    assert sorted(lost) == [("1", "2"), ("2", "1"), ("2", "2")]
    again = race("results/architectures/first.tsv")
    assert again.returncode == 0, again.stdout
    pd.testing.assert_frame_equal(
        pd.read_csv(results / "race/first/race.tsv", sep="\t").drop(columns="seconds"), standing.drop(columns="seconds")
    )
    weights = torch.load(results / "race/first/network.pt", weights_only=True)["weights"]
    assert all(torch.equal(value, network["weights"][name]) for name, value in weights.items())


def test_what_a_race_depends_on(race):
    refused = race("--dry-run", "results/race/first/round_2/3/network.pt")
    assert "round 2 of the race has no place 3; entrants of its rounds: [3, 2]" in refused.stdout
    planned = race.jobs("make_report")
    of_race = [rule for rule, _ in planned if rule in ("sample_architecture", "train_entrant", "finish_race")]
    assert sorted(of_race) == ["finish_race", "sample_architecture", *["train_entrant"] * 5]
    seeds = {wildcards["seed"] for rule, wildcards in planned if rule == "train_architecture"}
    assert seeds == {"0", "1"}  # 1001 and 1002 are the race's own


def test_rules_that_agree_or_too_few_architectures(script, finished_workflow, tmp_path):
    results = finished_workflow.folder / "results"
    given = ["--supernet", results / "search/first/supernet.pt", "--table", results / "latency/cpu.tsv", "--name", "a"]
    given += ["--latency-budget", "2s", "--out", tmp_path / "a.tsv"]
    done = script("sample_architecture", *given, "--count", 2, "--rules", "macs", "log_macs")
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "a.tsv", sep="\t")
    assert (len(rows), rows.ops.nunique()) == (4, 4)  # both rules choose the largest: three are sampled
    assert rows.chosen_by.tolist() == ["argmax"] * 3 + ["log_macs"]
    assert np.isfinite(rows.log_prob).all()
    assert rows.log_prob[:3].is_monotonic_decreasing
    few = script("sample_architecture", *given, "--count", 64, "--rules", "macs")
    assert few.returncode == 1
    assert "only 64 architectures of 65 for the race were found: lower sample.count, or allow more latency" in few.stderr
