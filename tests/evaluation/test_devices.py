"""Devices side by side: what each derived network takes where it was not chosen, and whether it does better there."""

import math

import pytest

from conftest import write_table
from fbnet.evaluation.devices import COLUMNS, device_sentences, devices
from fbnet.network import int8_bytes
from summaries import networks, rule, summary

FAST, SLOW, WIDE = "skip skip skip", "ir_k5_e3 ir_k5_e3 ir_k5_e3", "ir_k3_e1 ir_k3_e1 ir_k3_e1"


@pytest.fixture
def results(tmp_path, tiny):
    """Tables of two targets: on phone a kernel of 5 takes three times as long as one of 3, on server one of 3 as that of 5."""
    (tmp_path / "latency").mkdir()
    for target, costs in {
        "phone": {"ir_k3_e1": 1000.0, "ir_k5_e3": 3000.0, "skip": 500.0},
        "server": {"ir_k3_e1": 2000.0, "ir_k5_e3": 1000.0, "skip": 900.0},
    }.items():
        table = tmp_path / f"latency/{target}.tsv"
        write_table(table, tiny, latency_us=lambda cell, costs=costs: costs.get(cell.op, 100.0))
    return tmp_path


def found(name, target, ops, top1, budget_us=4000.0, **columns):
    """What a search found, as a summary has it."""
    known = {"network": [name], "search": name, "target": target, "ops": ops, "budget_us": budget_us, "top1_sd": 0.001}
    known |= {"baseline": f"{target}_{budget_us}", "predicted_us": 3300.0, "measured_us": math.nan, "latency_us": 3300.0}
    return networks("found", [top1], **known | columns)


def plan(table, **others):
    """The plan of these searches, and the further budgets of some."""
    return {name: {"others": others.get(name, {})} for name in table["search"].dropna()}


def side_by_side(results, tiny, *groups, **others):
    table = summary(*groups)
    return devices(results, plan(table, **others), table, tiny, 10), table


PHONE = found("p", "phone", WIDE, 0.91, measured_us=3600.0, latency_us=3400.0)
SERVER = found("s", "server", SLOW, 0.92)


def test_each_network_stands_on_each_target(results, tiny):
    side, _ = side_by_side(results, tiny, PHONE, SERVER, rule(0.99, ops=FAST))
    assert list(side.columns) == COLUMNS
    assert list(zip(side["target"], side["network"], side["chosen_for"], strict=True)) == [
        *[("phone", "p", "phone"), ("phone", "s", "server")],
        *[("server", "p", "phone"), ("server", "s", "server")],
    ]
    assert side["predicted_us"].to_list() == [3300.0, 9300.0, 6300.0, 3300.0]
    assert side["within"].to_list() == ["p", "", "", "s"]
    assert side["latency_us"].isna().to_list() == [False, True, True, False]  # measured where it was chosen, if anywhere
    assert side["measured_us"].isna().to_list() == [False, True, True, True]
    assert side["int8_bytes"].to_list() == [int8_bytes(tiny.network_cells(ops.split(), 10)) for ops in (WIDE, SLOW)] * 2
    assert side_by_side(results, tiny, PHONE, found("q", "phone", SLOW, 0.9))[0].empty  # of one target


def test_a_sentence_for_each_target_says_who_keeps_its_budget(results, tiny):
    phone, server = device_sentences(*side_by_side(results, tiny, PHONE, SERVER))
    assert phone == (
        "On phone within 4.00 ms, p was chosen (91.0%, 3.30 ms by its table). What was chosen for server is slower here: s, "
        "92.0%, 9.30 ms."
    )
    assert server.startswith("On server within 4.00 ms, s was chosen (92.0%, 3.30 ms by its table). What was chosen for phone is")
    roomy = found("p", "phone", WIDE, 0.91, 20000.0)
    phone, _ = device_sentences(*side_by_side(results, tiny, roomy, SERVER))
    assert phone.startswith("On phone within 20.0 ms, p was chosen")
    assert "Compared with s, chosen for server (92.0%, 9.30 ms here): 1.0 percentage points worse (95 % confidence" in phone
    alike = found("s", "server", WIDE, 0.93, 9000.0)
    phone, server = device_sentences(*side_by_side(results, tiny, PHONE, alike))
    assert phone.endswith("s, chosen for server, is the same architecture.")
    once = {"trainings": 1, "top1_sd": math.nan}
    phone, _ = device_sentences(*side_by_side(results, tiny, roomy.assign(**once), SERVER.assign(**once)))
    assert "(92.0%, 9.30 ms here): a difference of -1.0 percentage points; a single training run cannot tell" in phone


def test_of_several_the_best_by_validation_speaks_and_never_by_the_test_set(results, tiny):
    searches = [
        found("p", "phone", WIDE, 0.91, 20000.0),
        found("p_2", "phone", FAST, 0.80, 20000.0, validation_top1=0.99),  # the same target and budget
        found("s", "server", SLOW, 0.95, validation_top1=0.90),
        found("s_2", "server", FAST, 0.85, validation_top1=0.95),
    ]
    sentences = device_sentences(*side_by_side(results, tiny, *searches))
    assert len(sentences) == 2
    assert sentences[0].startswith("On phone within 20.0 ms, p_2 was chosen (80.0%")
    assert "s_2, chosen for server, is the same architecture" in sentences[0]
    tight = [one.assign(budget_us=4000.0, baseline="phone_4") if one["network"][0] == "p" else one for one in searches]
    first, *_ = device_sentences(*side_by_side(results, tiny, *tight))
    assert "Compared with s_2, chosen for server (85.0%, 1.80 ms here)" in first  # s is too slow here


def test_without_a_budget_a_network_is_held_to_the_latency_of_what_was_found(results, tiny):
    free = found("p", "phone", WIDE, 0.91, math.nan, baseline="like_p")
    side, table = side_by_side(results, tiny, free, SERVER, found("t", "server", FAST, 0.5))
    on_phone = side[side["target"] == "phone"].set_index("network")
    assert on_phone["within"].to_dict() == {"p": "p", "s": "", "t": "p"}
    assert device_sentences(side, table)[0].startswith("On phone, p was chosen (91.0%, 3.30 ms by its table). Compared with t")


@pytest.mark.parametrize(
    ("budgets", "kept"),
    [
        ({"size": "1MB"}, True),
        ({"params": "1k"}, False),
        ({"macs": "1k"}, False),
        ({"server": "4ms"}, True),
        ({"server": "3ms"}, False),
    ],
)
def test_all_budgets_of_a_search_are_to_be_kept(results, tiny, budgets, kept):
    roomy = found("p", "phone", WIDE, 0.91, 20000.0)
    side, table = side_by_side(results, tiny, roomy, SERVER, p=budgets)
    [within] = side[(side["target"] == "phone") & (side["network"] == "s")]["within"]
    assert ("p" in within.split()) == kept
    sentence = device_sentences(side, table)[0]
    assert ("What was chosen for server does not keep the other budgets here: s, 92.0%, 9.30 ms." in sentence) == (not kept)


def test_nothing_is_said_of_one_device(results, tiny):
    side, table = side_by_side(results, tiny, PHONE)
    assert device_sentences(side, table) == []
    assert list(side.columns) == COLUMNS  # which the report reads
