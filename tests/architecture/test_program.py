"""Choosing within budgets of several kinds at once, against brute force."""

import itertools
import re
from contextlib import suppress
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import write_table
from fbnet.architecture import budget
from fbnet.architecture.budgets import budget_of, latency_budget
from fbnet.architecture.budgets import costs as costs_of
from fbnet.architecture.program import Budget, best, binding, refusal
from fbnet.architecture.sampling import draw, draw_blindly
from fbnet.errors import InputError
from fbnet.latency import LatencyTable, read_table
from fbnet.network import Network, int8_bytes, peak_values, size
from fbnet.space import Cell, read_space


@st.composite
def problems(draw_from):
    """A space whose layers offer channels, too; values, and up to three budgets, a peak among them or not."""
    space = read_space("tiny")
    layers, channels = [], [space.stem.c_out]
    for number in range(draw_from(st.integers(1, 3))):
        after = [8, 16][: draw_from(st.integers(1, 2))]
        ops = ["ir_k3_e1", "ir_k5_e1"][: draw_from(st.integers(1, 2))]
        layers.append(
            tuple(Cell(str(number + 1), op, c_in, c_out, 8, 8, 1) for c_in in channels for c_out in after for op in ops)
        )
        channels = after
    space = replace(space, layers=tuple(layers), stages=(len(layers),))
    numbers = st.floats(0, 100).map(lambda number: round(number, 3))

    def rows():
        return [np.array([draw_from(numbers) for _ in layer]) for layer in layers]

    budgets = []
    for name in draw_from(st.sampled_from([["a"], ["a", "b"], ["a", "b", "c"]])):
        peak, costs, fixed = draw_from(st.booleans()), rows(), draw_from(numbers)
        budgets.append(Budget(name, draw_from(st.floats(1, 250)), costs, fixed, peak))
    return space, rows(), budgets


def networks(space):
    """All picks that are networks: neighbours agree on channels."""
    picks = itertools.product(*(range(len(layer)) for layer in space.layers))
    cells = {pick: [layer[i] for layer, i in zip(space.layers, pick, strict=True)] for pick in picks}
    return [pick for pick, path in cells.items() if all(a.c_out == b.c_in for a, b in itertools.pairwise(path))]


def value(values, pick):
    return sum(row[i] for row, i in zip(values, pick, strict=True))


def keeps(budgets, pick):
    return all(one.allows(pick) for one in budgets)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_what_is_chosen_is_the_best_of_all_that_keep_every_budget(problem):
    space, values, budgets = problem
    within = sorted((pick for pick in networks(space) if keeps(budgets, pick)), key=lambda pick: -value(values, pick))
    found = list(itertools.islice(best(space, values, budgets), len(networks(space)) + 1))
    assert sorted(found) == sorted(within)
    assert [value(values, pick) for pick in found] == pytest.approx([value(values, pick) for pick in within], abs=1e-4)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_what_binds_is_what_keeps_a_better_one_out(problem):
    space, values, budgets = problem
    pick = next(best(space, values, budgets), None)
    if pick is None:
        return
    expected = []
    for one in budgets:
        others = [other for other in budgets if other is not one]
        most = max(value(values, other) for other in networks(space) if keeps(others, other))
        if most > value(values, pick) + 1e-4:
            expected.append(one.name)
    assert binding(space, values, budgets, pick) == expected


def amounts(sentence):
    """What a refusal allows, by name, and by which word."""
    word = " and " if " and " in sentence.split(": allow ")[1] else " or "
    parts = [part.split(" ", 1) for part in sentence.split(": allow ")[1].split(word)]
    return {name: budget.in_us(text, NOTHING) for name, text in parts}, word


NOTHING = LatencyTable(read_space("tiny"), (0.0, 0.0, 0.0), ((0.0,) * 4,) * 3)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_a_refusal_says_what_to_allow_and_that_suffices_and_less_does_not(problem):
    space, _, budgets = problem
    every = networks(space)
    if any(keeps(budgets, pick) for pick in every):
        return
    allowed, word = amounts(refusal(space, budgets))
    by_name = {one.name: one for one in budgets}
    alone = {
        one.name: min((one.of(pick) for pick in every if keeps([o for o in budgets if o is not one], pick)), default=None)
        for one in budgets
    }
    if word == " or " and any(alone.values()):
        assert allowed == pytest.approx({name: least for name, least in alone.items() if least}, rel=2e-3)
        for name, amount in allowed.items():
            assert any(keeps([replace(one, most=amount) if one.name == name else one for one in budgets], p) for p in every)
    else:
        assert not any(alone.values())
        loosened = [replace(one, most=allowed.get(one.name, one.most)) for one in budgets]
        assert any(keeps(loosened, pick) for pick in every)
        excess = sum(allowed[name] / by_name[name].most - 1 for name in allowed)
        least = min(sum(max(one.of(pick) / one.most - 1, 0) for one in budgets) for pick in every)
        assert excess == pytest.approx(least, rel=2e-3, abs=2e-3 * len(budgets))


@settings(max_examples=50, deadline=None)
@given(problems(), st.integers(0, 5))
def test_random_networks_keep_every_budget_and_agree(problem, seed):
    space, values, budgets = problem
    within = {space.ops(pick) for pick in networks(space) if keeps(budgets, pick)}
    with suppress(InputError):  # the bins may leave out what just keeps a budget
        assert {*draw_blindly(space, 1, budgets, seed)} <= within
    with suppress(InputError), patch("fbnet.architecture.sampling.TRIES", 100):
        assert {ops for ops, _ in draw(space, values, "softmax", 3, seed, budgets)} <= within


@pytest.mark.parametrize("name", ["latency", "macs", "params", "memory", "size"])
def test_the_head_that_fits_the_channels_counts(elastic, tmp_path, name):
    """Of each kind of budget against brute force, where the head's convolution depends on what is chosen."""
    table = read_table(write_table(tmp_path / "t.tsv", elastic, latency_us=lambda cell: cell.c_in * cell.c_out / 8), elastic, 10)
    every = networks(elastic)
    if name == "latency":
        costs = {pick: table.predict(elastic.ops(pick)) for pick in every}
    else:
        costs = {pick: costs_of(elastic, elastic.ops(pick), 10, {})[name] for pick in every}
    values = [np.random.default_rng(0).normal(size=len(layer)) for layer in elastic.layers]
    for share in (0.0, 0.3, 0.7):
        most = float(np.quantile([*costs.values()], share))
        one = latency_budget(table, most) if name == "latency" else budget_of(f"budgets.{name}", most, elastic, 10, {})
        assert [one.of(pick) for pick in every] == pytest.approx([costs[pick] for pick in every])
        best_of_all = max((pick for pick in every if costs[pick] <= most), key=lambda pick: value(values, pick))
        assert next(best(elastic, values, [one])) == best_of_all


def test_kinds_of_budgets_are_what_the_network_has(tiny):
    """Each cost of a pick equals that of the whole network."""
    ops = ("ir_k3_e1", "skip", "ir_k5_e3")
    pick, cells = tiny.numbers(ops), tiny.network_cells(ops, 10)
    macs, params = size(cells)
    header = {"dtype": "float32", "batch": "2"}
    costs = {kind: budget_of(f"budgets.{kind}", 1.0, tiny, 10, header).of(pick) for kind in ("macs", "params", "size", "memory")}
    assert costs == {"macs": macs, "params": params, "size": int8_bytes(cells), "memory": 8 * max(map(peak_values, cells))}
    assert params == sum(parameter.numel() for parameter in Network(tiny, ops, 10).parameters())
    assert budget_of("budgets.memory", 1.0, tiny, 10, {"dtype": "int8"}).of(pick) * 8 == costs["memory"]


def test_a_sentence_names_each_budget_in_its_own_unit(tiny, tiny_table):
    header = {"dtype": "float32"}
    few = [
        latency_budget(tiny_table, tiny_table.most_us),
        budget_of("budgets.params", 100.0, tiny, 10, header),
        budget_of("budgets.memory", 1000.0, tiny, 10, header),
    ]
    keeps_none = r"no network of space tiny keeps latency_budget [\d.]+ µs and budgets.params 100 and "
    allow = r"budgets.memory 1 kB: allow budgets.params [\d.]+ k and budgets.memory [\d.]+ kB"
    assert re.fullmatch(keeps_none + allow, refusal(tiny, few))
    for method in ("argmax", "softmax"):
        with pytest.raises(InputError, match=keeps_none + allow):
            draw(tiny, [np.zeros(4)] * 3, method, budgets=few)
