"""Choosing architectures within a budget: exactly the most probable, what a rule chooses, and blindly."""

import itertools
import math
from contextlib import suppress
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import write_table
from fbnet.architecture import budget
from fbnet.architecture.budgets import latency_budget
from fbnet.architecture.rules import RULES
from fbnet.architecture.sampling import by_rule, described, draw, draw_blindly, draw_spread
from fbnet.errors import InputError
from fbnet.latency import LatencyTable, read_table
from fbnet.network import size
from fbnet.space import in_space, read_space


def small_space(candidates):
    """A space of layers with so many candidates each."""
    names = ["ir_k3_e1", "ir_k3_e3", "ir_k3_e6", "ir_k5_e1", "ir_k5_e3", "skip"]
    stages = [{"layers": 1, "channels": 8, "stride": 1, "candidates": names[:count]} for count in candidates]
    definition = {"name": "small", "resolution": 8, "stem": {"channels": 8, "stride": 1}, "head": {"channels": 8}}
    return read_space(definition | {"stages": stages})


def at_most(table, most_us):
    """One budget, of latency."""
    return [latency_budget(table, most_us)]


def everything(table, theta):
    """All architectures with log-probability and latency, the most probable first, by brute force."""
    rows = []
    for pick in itertools.product(*(range(len(row)) for row in theta)):
        log_prob = sum(row[i] - np.logaddexp.reduce(row) for row, i in zip(theta, pick, strict=True))
        ops = tuple(layer[i].op for layer, i in zip(table.space.layers, pick, strict=True))
        rows.append((log_prob, ops, table.predict(ops)))
    return sorted(rows, key=lambda row: -row[0])


@st.composite
def problems(draw_from):
    counts = draw_from(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    latency = st.one_of(st.just(0.0), st.floats(0.01, 1000))
    rows = tuple(tuple(draw_from(latency) for _ in range(count)) for count in counts)
    table = LatencyTable(small_space(counts), (draw_from(latency), 1.0, 1.0), rows)
    theta = [[draw_from(st.floats(-20, 20)) for _ in range(count)] for count in counts]
    share = draw_from(st.floats(0, 1.1))
    return table, theta, table.least_us + share * (table.most_us - table.least_us) + 1e-6


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(1, 5))
def test_the_integer_program_finds_what_brute_force_finds(problem, count):
    table, theta, budget_us = problem
    keep = [row for row in everything(table, theta) if row[2] <= budget_us]
    found = draw(table.space, theta, "argmax", count, budgets=at_most(table, budget_us))
    assert len(found) == min(count, len(keep))
    assert len({ops for ops, _ in found}) == len(found)
    assert all(table.predict(ops) <= budget_us + 1e-9 for ops, _ in found)
    assert [log_prob for _, log_prob in found] == pytest.approx([row[0] for row in keep[: len(found)]], abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(problems(), st.integers(0, 3))
def test_every_way_to_draw_keeps_the_budget(problem, seed):
    table, theta, budget_us = problem
    within = {row[1] for row in everything(table, theta) if row[2] <= budget_us}
    count = min(3, len(within))
    with suppress(InputError), patch("fbnet.architecture.sampling.TRIES", 100):  # all that keep it may be most improbable
        assert {ops for ops, _ in draw(table.space, theta, "softmax", 20, seed, at_most(table, budget_us))} <= within
    with suppress(InputError):  # some may keep it by less than the bins tell
        blind = draw_blindly(table.space, count, at_most(table, budget_us), seed)
        assert len(blind) == len(set(blind)) == count
        assert set(blind) <= within


def test_blind_draws_are_uniform_over_all_that_keep_the_budget(tiny, tiny_table):
    budget_us = tiny_table.least_us + 0.5 * (tiny_table.most_us - tiny_table.least_us) + 1
    table = LatencyTable(tiny, (0.0, 0.0, 0.0), ((1.0, 5.0, 9.0, 2.0), (1.0, 4.0, 6.0, 0.0), (3.0, 8.0, 2.0, 0.5)))
    budget_us = 11.05
    within = [ops for _, ops, us in everything(table, [[0.0] * 4] * 3) if us <= budget_us]
    assert 10 < len(within) < 50
    counts = dict.fromkeys(within, 0)
    for seed in range(6000):
        counts[draw_blindly(tiny, 1, at_most(table, budget_us), seed)[0]] += 1
    expected = 6000 / len(within)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 2 * len(within)  # χ², mean len − 1


@st.composite
def tables(draw_from):
    """Latencies of all sorts for `tiny`, and for a space of other candidates, that of few in some layers."""
    space = draw_from(st.sampled_from([read_space("tiny"), small_space([6, 3, 1, 5])]))
    rows = tuple(tuple(draw_from(st.floats(0, 1000)) for _ in layer) for layer in space.layers)
    return LatencyTable(space, (1.0, 1.0, 1.0), rows)


def by_hand(space, rule, ops):
    """What a rule makes as large as it can."""
    macs = [size([cell])[0] for cell in space.path(ops)]
    return {"macs": sum(macs), "log_macs": sum(math.log(1 + each) for each in macs)}[rule]


@settings(max_examples=100, deadline=None)
@given(tables(), st.floats(0, 1.1), st.sampled_from(sorted(RULES)))
def test_a_rule_chooses_the_best_of_all_that_keep_the_budget(table, share, rule):
    budget_us = table.least_us + share * (table.most_us - table.least_us) + 1e-6
    picks = itertools.product(*(range(len(row)) for row in table.operators_us))
    every = [tuple(layer[i].op for layer, i in zip(table.space.layers, pick, strict=True)) for pick in picks]
    within = [ops for ops in every if table.predict(ops) <= budget_us]
    chosen = by_rule(table.space, rule, at_most(table, budget_us))
    assert table.predict(chosen) <= budget_us + 1e-9
    largest = max(by_hand(table.space, rule, ops) for ops in within)
    assert by_hand(table.space, rule, chosen) == pytest.approx(largest, rel=1e-5)


def test_the_rules_differ_and_need_no_budget(tiny, tiny_table):
    assert by_rule(tiny, "macs") == by_rule(tiny, "log_macs") == ("ir_k5_e3",) * 3  # the largest everywhere
    # Two of three layers can be bought: one large one weighs more than small ones, but their logarithms do not.
    table = LatencyTable(tiny, (0.0, 0.0, 0.0), ((4.0, 4.0, 9.0, 0.0), (1.0, 9.0, 9.0, 0.0), (1.0, 9.0, 5.0, 0.0)))
    chosen = {rule: by_rule(tiny, rule, at_most(table, 6.0)) for rule in RULES}
    macs = {rule: [size([cell])[0] for cell in tiny.path(ops)] for rule, ops in chosen.items()}
    assert sum(macs["macs"]) > sum(macs["log_macs"])
    assert math.prod(map(float, macs["macs"])) < math.prod(map(float, macs["log_macs"]))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_within_an_impossible_budget_is_a_sentence(tiny, tiny_table, rule):
    with pytest.raises(InputError, match=r"^no network of space tiny keeps latency_budget 5 µs: allow latency_budget [\d.]+ µs$"):
        by_rule(tiny, rule, at_most(tiny_table, 5.0))
    least = by_rule(tiny, rule, at_most(tiny_table, tiny_table.least_us + 1e-6))
    assert tiny_table.predict(least) == pytest.approx(tiny_table.least_us)


@settings(max_examples=50, deadline=None)
@given(tables(), st.integers(1, 8), st.integers(0, 3))
def test_a_spread_has_one_within_each_of_limits_that_rise_evenly(table, count, seed):
    least_us = (table.least_us + table.most_us) / 2 + 1e-6
    with suppress(InputError):  # few of them may keep the least limit
        drawn = draw_spread(table, count, least_us, table.most_us, seed)
        assert drawn == draw_spread(table, count, least_us, table.most_us, seed)
        assert len({*drawn}) == len(drawn) == count
        for number, ops in enumerate(drawn):
            limit_us = least_us + (table.most_us - least_us) * number / max(1, count - 1)
            assert table.predict(ops) <= limit_us + 1e-6


def test_a_spread_is_spread_and_another_seed_gives_another(tmp_path):
    space = read_space("fbnet_small")
    made = write_table(tmp_path / "table.tsv", space, latency_us=lambda cell: float(size([cell])[0]))
    table = read_table(made, space, 10)
    least_us, most_us = (table.least_us + share * (table.most_us - table.least_us) for share in (0.01, 0.1))
    spread, blind = draw_spread(table, 30, least_us, most_us), draw_blindly(space, 30, at_most(table, most_us))
    assert spread != draw_spread(table, 30, least_us, most_us, seed=1)
    assert not {*draw_spread(table, 30, table.most_us, 2 * table.most_us)} & {
        *draw_blindly(space, 30, at_most(table, table.most_us))
    }
    # nor would a sweep over budgets that leave all open train the same networks for each of them
    assert not {*draw_blindly(space, 30, at_most(table, 2 * table.most_us))} & {
        *draw_blindly(space, 30, at_most(table, table.most_us))
    }
    latencies = [table.predict(ops) for ops in spread]
    assert np.mean(latencies[:10]) < np.mean(latencies[10:20]) < np.mean(latencies[20:])
    assert np.std(latencies) > 1.2 * np.std([table.predict(ops) for ops in blind])


def test_too_few_architectures_for_a_spread_is_a_sentence(tiny_table):
    most_us = tiny_table.most_us
    assert len(draw_spread(tiny_table, 64, most_us + 1, most_us + 2)) == 64
    with pytest.raises(
        InputError, match=r"only 64 architectures of space tiny .*: lower evaluation\.random or evaluation\.ranked"
    ):
        draw_spread(tiny_table, 65, most_us + 1, most_us + 2)


def test_a_full_search_space_is_solved_exactly_within_seconds(tmp_path):
    """22 × 9: the bound of the relaxed problem, met from below, proves the optimum where brute force cannot."""
    space = read_space("fbnet_cifar")
    rng = np.random.default_rng(0)
    table = read_table(write_table(tmp_path / "table.tsv", space, latency_us=lambda cell: rng.uniform(1, 500)), space, 10)
    theta = [rng.normal(0, 2, len(layer)) for layer in space.layers]
    budget_us = table.least_us + 0.3 * (table.most_us - table.least_us)
    best = draw(space, theta, "argmax", 20, budgets=at_most(table, budget_us))
    assert len({ops for ops, _ in best}) == 20
    assert max(table.predict(ops) for ops, _ in best) <= budget_us
    assert [log_prob for _, log_prob in best] == sorted((log_prob for _, log_prob in best), reverse=True)
    # no exchange of one or two operators improves on it
    log_probs = [row - np.logaddexp.reduce(row) for row in theta]
    pick = [[cell.op for cell in layer].index(op) for layer, op in zip(space.layers, best[0][0], strict=True)]
    gains = [
        (
            log_probs[layer][other] - log_probs[layer][pick[layer]],
            table.operators_us[layer][other] - table.operators_us[layer][pick[layer]],
        )
        for layer in range(22)
        for other in range(len(log_probs[layer]))
    ]
    left = budget_us - table.predict(best[0][0])
    assert not any(gain > 1e-6 and cost <= left for gain, cost in gains)


def test_without_a_budget_the_first_is_the_argmax_and_draws_follow_theta(tiny):
    theta = [[0.0, 1.0, 0.0, -1.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]]
    [(ops, log_prob)] = draw(tiny, theta, "argmax")
    assert ops == ("ir_k3_s2", "ir_k3_e1", "skip")
    exact = sum(max(row) - math.log(sum(map(math.exp, row))) for row in theta)
    assert log_prob == pytest.approx(exact)

    drawn = draw(tiny, theta, "softmax", count=500, seed=1)
    assert drawn == draw(tiny, theta, "softmax", count=500, seed=1)
    assert drawn != draw(tiny, theta, "softmax", count=500, seed=2)
    architectures = [ops for ops, _ in drawn]
    assert len(set(architectures)) == len(architectures) <= 64
    assert architectures[0] == ops
    assert [p for _, p in drawn] == sorted((p for _, p in drawn), reverse=True)
    assert len(draw(tiny, [[0.0] * 4] * 3, "softmax", count=20_000)) == 64
    assert len(draw(tiny, theta, "argmax", count=100)) == 64


@pytest.mark.parametrize(
    ("text", "us"),
    [("8ms", 8000), ("8500us", 8500), ("0.5 s", 500_000), ("12.5µs", 12.5), ("fbnet_a", "1"), (" 0.8 * fbnet_a", "0.8")],
)
def test_budgets_as_people_write_them(text, us, tmp_path):
    space = read_space("fbnet_32")
    table = read_table(write_table(tmp_path / "table.tsv", space, latency_us=lambda cell: 0.1 * cell.c_out), space, 10)
    ops = budget.read("fbnet_a", space)[1]
    expected = float(us) * table.predict(ops) if isinstance(us, str) else us
    if expected >= table.least_us:
        assert budget.in_us(text, table) == pytest.approx(expected)
    else:
        with pytest.raises(InputError, match=f"the fastest network of space fbnet_32 takes {table.least_us:.0f} µs"):
            budget.in_us(text, table)


def test_an_operator_stands_for_the_network_that_has_it_in_every_layer(tmp_path):
    space = read_space("fbnet_32")
    made = write_table(tmp_path / "table.tsv", space, latency_us=lambda cell: float(len(cell.op) * cell.c_out * cell.expansion))
    table = read_table(made, space, 10)
    rows = [
        dict(zip((cell.op for cell in layer), row, strict=True))
        for layer, row in zip(space.layers, table.operators_us, strict=True)
    ]
    everywhere = sum(table.fixed_us) + sum(row["ir_k3_e6"] for row in rows)
    for text, factor in (("k3_e6", 1), ("0.5 * k3_e6", 0.5), ("ir_k3_e6", 1), ("2*ir_k3_e6", 2)):
        assert budget.in_us(text, table) == pytest.approx(factor * everywhere), text
    assert budget.read("fbnet_c", space) == (1.0, in_space("fbnet_c", space))  # a published name is still that network


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "must be a latency with its unit"),
        ("8 hours", "must be a latency with its unit"),
        ("0ms", "more than nothing"),
        ("1e400 * fbnet_a", "must be a latency"),
        ("fbnet_x", r"fbnet_x is neither an operator \(k3_e1, k3_s2, k5_e3, skip\) nor a published network \(fbnet_a, "),
        ("fbnet_a", "space tiny has"),
        ("-3ms", "must be a latency"),
        ("; touch x", "must be a latency"),
        ("0.5 * k3_e6", "latency_budget is '0.5 \\* k3_e6', but .*ir_k3_e6"),
        ("k9_e6", "but k9_e6 is neither an operator"),
    ],
)
def test_what_is_no_budget_is_a_sentence(tiny, text, message):
    with pytest.raises(InputError, match=message):
        budget.read(text, tiny)


def test_an_impossible_budget_names_the_least(tiny_table):
    with pytest.raises(InputError, match=f"takes {tiny_table.least_us:.0f} µs: allow at least that"):
        budget.in_us("1us", tiny_table)


def test_too_few_architectures_for_a_baseline_is_a_sentence(tiny, tiny_table):
    with pytest.raises(InputError, match="only 64 architectures of space tiny"):
        draw_blindly(tiny, 100, at_most(tiny_table, 1e9))


def test_described(tiny_table):
    ops = ("skip", "ir_k3_e1", "skip")
    rows = described(tiny_table, 10, {"a": ops})
    assert isinstance(rows, pd.DataFrame)
    assert rows.loc[0, "latency_us"] == tiny_table.predict(ops)
    assert rows.loc[0, "ops"] == " ".join(ops)
