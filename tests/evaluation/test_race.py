"""The race: who takes part, who goes on, and what the winner becomes."""

import json
import os
import re
import shutil
import signal
import time
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from conftest import BUDGET, with_settings, write_table
from fbnet.architecture.budgets import latency_budget
from fbnet.architecture.entrants import Scores, entrants, learned
from fbnet.architecture.sampling import by_rule, described, log_probability
from fbnet.errors import InputError
from fbnet.evaluation.plan import NetworkSet
from fbnet.evaluation.results import RUNS, summarise
from fbnet.evaluation.trained import by_validation, nth_best
from fbnet.latency import read_table


@pytest.fixture
def save_accuracy(tmp_path):
    """Write a network.pt that is nothing but its accuracy."""

    def save(name, validation_top1):
        path = tmp_path / f"{name}.pt"
        run = {"name": name, "weights": {}, "ops": [], "validation_top1": validation_top1, "data_sha256": ""}
        torch.save(run | {"epochs": 1, "entrants": None}, path)
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
    """A workflow whose search has a race: five architectures, and one that these speak for; three of them go on."""
    race = {"epochs": [2, 1], "rules": ["macs"], "entrants": 5, "learned": 1}
    copy_of_finished.configure(with_settings(searches={"first": BUDGET}, sample={"count": 1}, race=race))
    return copy_of_finished


def test_the_better_half_goes_on_and_the_winner_is_the_result(race):
    results = race.folder / "results"
    jobs = race.jobs()
    trained = [(wildcards["round"], wildcards["place"]) for rule, wildcards in jobs if rule == "train_entrant"]
    assert sorted(trained) == [*(("1", str(place)) for place in range(1, 7)), *(("2", str(place)) for place in range(1, 4))]
    done = race()
    assert done.returncode == 0, done.stdout
    entered = pd.read_csv(results / "race/first/entrants.tsv", sep="\t")
    assert entered.name.tolist() == [f"first_{number}" for number in range(1, 6)]
    assert entered.chosen_by.tolist() == ["theta", "macs", "theta + macs", "a random draw", "a random draw"]
    more = pd.read_csv(results / "race/first/learned.tsv", sep="\t")
    assert more.name.tolist() == ["first_6"]
    assert re.fullmatch(r"learned shares [+-][01]\.\d\d theta [+-][01]\.\d\d macs", more.chosen_by[0])
    assert pd.concat([entered, more]).ops.nunique() == 6
    assert entered.macs[1] == entered.macs.max()  # no network takes two seconds
    standing = pd.read_csv(results / "race/first/race.tsv", sep="\t")
    first, second = (standing[standing["round"] == number] for number in (1, 2))
    assert (sorted(first.name), len(second)) == ([*entered.name, "first_6"], 3)
    assert set(second.name) == set(first.sort_values("validation_top1", ascending=False, kind="stable").name[:3])
    assert (set(first.epochs), set(second.epochs)) == ({2}, {3})
    for rows in (first, second):
        assert rows.validation_top1.is_monotonic_decreasing
    [winner] = pd.read_csv(results / "architectures/first.tsv", sep="\t").to_dict("records")
    best = second.iloc[0]
    assert (winner["name"], winner["ops"], winner["epochs"]) == ("first", best.ops, 3)
    network = torch.load(results / "race/first/network.pt", weights_only=True)
    assert (network["name"], network["entrants"]) == ("first", 6)
    assert winner["test_top1"] == pytest.approx(network["test_top1"], abs=1e-6)
    exported = load_file(results / "models/first.safetensors")
    assert all(torch.equal(value, exported[name]) for name, value in network["weights"].items())
    card = (results / "models/first.md").read_text(encoding="utf-8")
    assert "from scratch for 3 epochs with seed 1002: the winner in validation accuracy of a race among 6" in card
    assert f"which it entered by {winner['chosen_by']}" in card
    entry = json.loads((results / "modeldef/first.json").read_text(encoding="utf-8"))["architectures"]["first"]
    assert entry["test_top1"] == winner["test_top1"]
    told = f"after 3 epochs of training, in the race that it has won, which it entered by {winner['chosen_by']}\n"
    assert f"test accuracy: {winner['test_top1']:.1%} {told}" in done.stdout
    for place in range(1, 7):  # whoever was chosen by the supernet has nothing from it
        run = torch.load(results / f"race/first/round_1/{place}/network.pt", weights_only=True)
        assert (run["supernet_sha256"], run["before_sha256"]) == (None, None)
    assert race.planned() == set()

    # one training and the end are lost: it and what follows are made again, and nothing else
    lost = results / "race/first/round_1/2"
    lost.rename(race.folder / "kept")
    (results / "architectures/first.tsv").unlink()
    jobs = race.jobs("results/architectures/first.tsv")
    trained = [(wildcards["round"], wildcards["place"]) for rule, wildcards in jobs if rule == "train_entrant"]
    assert sorted(trained) == [("1", "2"), ("1", "6"), ("2", "1"), ("2", "2"), ("2", "3")]
    (race.folder / "kept").rename(lost)

    # killed at random, it ends as it did
    shutil.rmtree(results / "race/first/round_2/1")
    running = race.start("results/architectures/first.tsv")
    time.sleep(np.random.default_rng().uniform(3, 8))
    os.killpg(running.pid, signal.SIGKILL)  # Snakemake and its jobs
    running.wait()
    assert race("--unlock").returncode == 0
    done = race("results/architectures/first.tsv")
    assert done.returncode == 0, done.stdout
    again = pd.read_csv(results / "race/first/race.tsv", sep="\t")
    assert again.drop(columns="seconds").equals(standing.drop(columns="seconds"))
    weights = torch.load(results / "race/first/network.pt", weights_only=True)["weights"]
    assert all(torch.equal(value, weights[name]) for name, value in network["weights"].items())


def test_what_a_race_depends_on(race):
    refused = race("--dry-run", "results/race/first/round_2/4/network.pt")
    assert "round 2 of the race has no place 4; entrants of its rounds: [6, 3]" in refused.stdout
    planned = race.jobs("make_report")
    of_race = [rule for rule, _ in planned if rule in ("sample_architecture", "learn_entrants", "train_entrant", "finish_race")]
    assert sorted(of_race) == ["finish_race", "learn_entrants", "sample_architecture", *["train_entrant"] * 9]
    seeds = {wildcards["seed"] for rule, wildcards in planned if rule == "train_architecture"}
    assert seeds == {"0", "1"}  # 1001 and 1002 are the race's own


@pytest.fixture
def slow_table(tiny, tmp_path):
    """A table in which what has more MACs takes more time."""

    def by_op(cell):
        return {"skip": 1.0, "ir_k3_e1": 20.0, "ir_k3_s2": 40.0, "ir_k5_e3": 40.0}.get(cell.op, 1.0)

    return read_table(write_table(tmp_path / "table.tsv", tiny, latency_us=by_op), tiny, 10)


THETA = [[5.0, 1.0, 0.0, 0.0]] * 3  # ir_k3_e1, the first candidate, in every layer


def architectures_of(space):
    return list(product(*[[cell.op for cell in layer] for layer in space.layers]))


def test_theta_and_rules_choose_alone_and_together_and_chance_the_rest(tiny, slow_table):
    table, rules = slow_table, ["macs", "log_macs"]
    budget_us = table.predict(["ir_k3_e1", "ir_k3_e1", "ir_k5_e3"])
    within = [latency_budget(table, budget_us)]
    found = entrants(table, THETA, 2, rules, 9, within)
    together = ["theta + macs", "theta + log_macs", "macs + log_macs"]
    assert list(found.values()) == ["theta", "theta", "macs", "log_macs", *together, "a random draw", "a random draw"]
    assert next(iter(found)) == ("ir_k3_e1",) * 3
    assert list(found)[2] == by_rule(tiny, "macs", within)
    assert all(table.predict(ops) <= budget_us for ops in found)
    assert entrants(table, THETA, 2, rules, 9, within) == found
    assert list(entrants(table, THETA, 2, rules, 9, within, seed=1))[:7] == list(found)[:7]
    assert set(entrants(table, THETA, 2, rules, 9, within, seed=1)) != set(found)
    assert entrants(table, THETA, 2, rules, 3, within) == dict(list(found.items())[:3])
    # both: the best by the sum, each in standard deviations of random networks
    half = entrants(table, THETA, 1, ["macs"], 3, within)
    macs = np.array([described(table, 10, {"a": ops}).macs[0] for ops in architectures_of(tiny)])
    probable = np.array([log_probability(tiny, THETA, ops) for ops in architectures_of(tiny)])
    scores = dict(zip(architectures_of(tiny), probable / probable.std() + macs / macs.std(), strict=True))
    best = sorted((ops for ops in scores if table.predict(ops) <= budget_us), key=lambda ops: -scores[ops])
    assert list(half.values()) == ["theta", "macs", "theta + macs"]
    assert list(half)[2] == next(ops for ops in best if ops not in list(half)[:2])
    # a rule that agrees with theta takes its next best
    assert len(entrants(table, [[0.0, 0.0, 9.0, 0.0]] * 3, 1, rules, 3)) == 3
    assert len(entrants(table, THETA, 1, rules, 64)) == 64  # all that there are
    with pytest.raises(InputError, match=r"only 64 architectures .* but 65 random ones are wanted: lower race.entrants"):
        entrants(table, THETA, 1, rules, 65)


def test_what_theta_and_rules_are_worth_is_learned_from_accuracies(tiny, slow_table):
    """Accuracies that follow a share of theta and against one of a rule are found out, and the best by them is chosen."""
    table, rules = slow_table, ["macs", "log_macs"]
    scores = Scores(tiny, THETA, rules)
    true = np.array([0.5, 1.0, -0.8])
    rng = np.random.default_rng(0)

    def accuracy(ops):
        return 0.5 + 0.02 * float(true @ scores.of(ops))

    budget_us = table.predict(["ir_k3_e1", "ir_k3_e1", "ir_k5_e3"])
    within = [latency_budget(table, budget_us)]
    keep = [ops for ops in architectures_of(tiny) if table.predict(ops) <= budget_us]
    trained = {ops: accuracy(ops) + 0.0005 * rng.standard_normal() for ops in entrants(table, THETA, 1, rules, 9, within)}
    found = learned(tiny, THETA, rules, trained, 3, within)
    assert len(found) == 3
    assert not found.keys() & trained.keys()
    assert all(table.predict(ops) <= budget_us for ops in found)
    assert next(iter(found)) == max((ops for ops in keep if ops not in trained), key=accuracy)
    shares = [float(word) for word in next(iter(found.values())).split()[2::2]]
    assert shares == pytest.approx(true / np.abs(true).sum(), abs=0.05)
    assert learned(tiny, THETA, rules, trained, 3, within) == found
    assert learned(tiny, THETA, rules, trained, 1, within) == dict(list(found.items())[:1])
    few = [latency_budget(table, table.predict(["ir_k3_e1", "skip", "skip"]))]  # within which there are four
    with pytest.raises(
        InputError, match=r"a race wants 2 \+ 3 architectures, but only 4 keep latency_budget 25 µs: lower race.learned"
    ):
        learned(tiny, THETA, rules, dict.fromkeys(entrants(table, THETA, 1, rules, 2, few), 0.5), 3, few)


def test_accuracies_that_tell_nothing_or_the_contrary_leave_what_is_expected(tiny, slow_table):
    among = entrants(slow_table, THETA, 1, ["macs"], 6)
    assert len(learned(tiny, THETA, ["macs"], dict.fromkeys(among, 0.5), 2)) == 2
    scores = Scores(tiny, THETA, [])
    against = {ops: 0.5 - 0.1 * scores.of(ops)[0] for ops in among}
    assert set(learned(tiny, THETA, [], against, 2).values()) == {"learned shares +1.00 theta"}


def test_the_time_of_a_race_is_the_search_s(tiny, tmp_path):
    (tmp_path / "latency").mkdir()
    table = read_table(write_table(tmp_path / "latency/cpu.tsv", tiny), tiny, 10)
    found = described(table, 10, {"first": ("ir_k3_e1", "skip", "ir_k5_e3")})
    tables = {
        "architectures/first.tsv": found,
        "search/shared/history.tsv": pd.DataFrame({"seconds": [10.0, 20.0]}),
        "race/first/race.tsv": pd.DataFrame({"seconds": [1.0, 2.0, 3.0]}),
        "evaluation/first.supernet.tsv": pd.DataFrame({"name": ["first"], "supernet_top1": [0.5]}),
    }
    for name, rows in tables.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(tmp_path / name, sep="\t", index=False)
    runs = pd.DataFrame([("first", 0, 0.8, 0.9, 7.0)], columns=RUNS)
    names = {"method": "first", "baseline": "like_first", "supernet": "shared"}
    entry = vars(NetworkSet("found", "cpu", ("first",), seed=0, **names)) | {"measured": False}
    for raced, search_s in ((True, 36.0), (False, 30.0)):
        [row] = summarise(tmp_path, {"first": entry | {"raced": raced}}, runs, tiny, 10).to_dict("records")
        assert (row["search_s"], row["training_s"], row["supernet_top1"]) == (search_s, 7.0, 0.5)


def test_a_summary_goes_from_the_least_budget_to_the_largest(tiny, tmp_path):
    for folder in ("latency", "architectures"):
        (tmp_path / folder).mkdir()
    table = read_table(write_table(tmp_path / "latency/cpu.tsv", tiny), tiny, 10)
    plan = {}
    for name, budget in {"fast_10ms": "10ms", "fast_2ms": "2ms", "fast": None, "fast_1ms": "1ms"}.items():
        described(table, 10, {name: ("skip", "skip", "skip")}).to_csv(
            tmp_path / f"architectures/{name}.tsv", sep="\t", index=False
        )
        plan[name] = vars(NetworkSet("rule", "cpu", (name,), rule="macs", baseline=name, budget=budget))
        plan[name] |= {"measured": False, "raced": False}
    runs = pd.DataFrame([(name, 0, 0.8, 0.9, 7.0) for name in plan], columns=RUNS)
    assert list(summarise(tmp_path, plan, runs, tiny, 10)["network"]) == ["fast_1ms", "fast_2ms", "fast_10ms", "fast"]
