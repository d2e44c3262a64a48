"""What an evaluation says beside its comparisons: of orders, of budgets, and of each search."""

import math

import pandas as pd
import pytest

from fbnet.evaluation.evidence import comparisons
from fbnet.evaluation.findings import findings, order_sentences, over_budget, race_sentence
from summaries import networks, random_search, rule, summary

STANDING = pd.DataFrame(  # of a race
    [
        *[(1, "a_1", "macs", 2, 0.7), (1, "a_2", "theta", 2, 0.9)],
        *[(1, "a_3", "theta + macs", 2, 0.8), (1, "a_4", "learned shares +0.40 theta +0.60 macs", 2, 0.6)],
        *[(2, "a_3", "theta + macs", 6, 0.97), (2, "a_2", "theta", 6, 0.95)],
    ],
    columns=["round", "name", "chosen_by", "epochs", "validation_top1"],
)


def ranked(supernet=0.8, macs=0.5, training=None, searches=("first",)):
    """An order of ten networks."""
    shared = {"target": "cpu", "networks": 10, "tau_by_chance": 0.49, "regret": 0.012, "search": None}
    rows = [shared | {"by": "supernet", "search": search, "tau": supernet, "regret": 0.034} for search in searches]
    rows += [shared | {"by": "macs", "tau": macs}]
    rows += [shared | {"by": "training", "tau": training}] if training is not None else []
    return pd.DataFrame(rows)


def test_the_order_inside_a_supernet_is_held_against_macs_chance_and_the_ceiling():
    [found] = order_sentences(ranked(training=0.9))
    assert found == (
        "first",
        "comparison",
        "Kendall's τ of one-shot accuracy with accuracy after training is +0.80 (n = 10 random architectures, by chance within "
        "±0.49), that of MACs +0.50; +0.90 is the ceiling, one half of the training runs against the other. The one that the "
        "supernet puts first is 3.4 percentage points behind the best of them, the one that MACs put first 1.2.",
    )
    assert "ceiling" not in order_sentences(ranked())[0][2]  # of a single training run


@pytest.mark.parametrize(
    ("supernet", "macs", "than"),
    [
        (0.6, 0.7, "their MACs (+0.70) (Kendall's τ +0.60, n = 10)"),
        (0.7, 0.7, "their MACs (+0.70)"),
        (0.3, 0.1, "chance (Kendall's τ +0.30, n = 10)"),
        (0.3, 0.7, "chance"),  # the worse of the two
        (-0.9, 0.1, "chance"),
    ],
)
def test_a_supernet_that_orders_no_better_is_warned_of(supernet, macs, than):
    _, (about, kind, text) = order_sentences(ranked(supernet, macs))
    assert (about, kind) == ("first", "warning")
    assert text.startswith(f"The supernet orders architectures no better than {than}")


def test_each_supernet_has_its_sentences():
    found = order_sentences(ranked(supernet=0.2, searches=("first", "second")))
    assert [(about, kind) for about, kind, _ in found] == [
        *(("first", "comparison"), ("first", "warning")),
        *(("second", "comparison"), ("second", "warning")),
    ]


def test_an_order_that_training_itself_does_not_repeat_is_warned_of():
    *_, (about, kind, text) = order_sentences(ranked(training=0.49))
    assert (about, kind) == ("all", "warning")
    assert "Training runs hardly agree on the order of architectures on cpu (Kendall's τ +0.49 between their halves)" in text
    assert len(order_sentences(ranked(training=0.5))) == 1


def test_a_race_says_who_won_and_who_else_came_how_far():
    assert race_sentence(STANDING) == (
        "Of 4 architectures in the race the winner, a_3, was chosen by theta + macs with a validation accuracy of 97.0% "
        "after 6 epochs. Chosen by theta with a validation accuracy of 95.0% after 6 epochs; by macs with a validation accuracy "
        "of 70.0% after 2 epochs."
    )
    assert race_sentence(STANDING[STANDING["chosen_by"] == "macs"]).endswith("70.0% after 2 epochs.")


def test_without_an_order_nothing_is_said_of_it():
    assert order_sentences(ranked().iloc[:0]) == []


@pytest.mark.parametrize(
    ("latency_us", "measured_us", "budget_us", "words"),
    [
        (8500.0, 8600.0, 8000.0, "The measured and rescaled latency of the derived architecture is 8.50 ms, 6.2% more than its"),
        (
            8500.0,
            math.nan,
            8000.0,
            "The predicted latency of the derived architecture is 8.50 ms, 6.2% more than its budget of 8.00 ms",
        ),
        (8200.0, 8600.0, 8000.0, None),  # within the table's error
        (8500.0, 8600.0, math.nan, None),
    ],
)
def test_a_network_over_its_budget_is_told(latency_us, measured_us, budget_us, words):
    found = over_budget({"latency_us": latency_us, "measured_us": measured_us, "budget_us": budget_us}, 0.03)
    assert [words in text and "the table's MAPE is 3.0%" in text for text in found] == ([True] if words else [])


@pytest.fixture
def results(tmp_path):
    """What is read beside summary, comparisons and ranking."""
    (tmp_path / "latency").mkdir()
    (tmp_path / "latency/cpu.validation.tsv").write_text("# mean_error: 0.03\nops\n", encoding="utf-8")
    (tmp_path / "search/found_0").mkdir(parents=True)
    rows = [
        (epoch, layer, 0.25 if epoch == 0 else share) for epoch in (0, 1) for layer in "123" for share in (0.97, 0.01, 0.01, 0.01)
    ]
    text = "".join(f"{epoch}\t{layer}\t{share}\n" for epoch, layer, share in rows)
    (tmp_path / "search/found_0/theta.tsv").write_text(f"epoch\tlayer\tprobability\n{text}", encoding="utf-8")
    return tmp_path


def test_what_is_wrong_with_a_search_is_about_it(results, tiny):
    """The rest is about all; the table's error counts, and of theta the last epoch."""

    def found_of(table):
        return findings(
            results, table, comparisons(table), ranked().iloc[:0], {}, {"found": "found", "found_0": "found_0"}, tiny, 10
        )

    good = networks("found", [0.9], ops="ir_k3_e1 ir_k5_e3 ir_k5_e3", latency_us=8200.0)
    [(about, kind, text)] = found_of(good)
    assert (about, kind) == ("all", "comparison")
    assert "1 of 1 derived architectures keep their budget" in text
    bad = good.assign(ops="skip ir_k5_e3 skip", latency_us=9000.0, supernet_top1=0.1)
    _, *found = found_of(bad)
    assert {(about, kind) for about, kind, _ in found} == {("found_0", "warning")}
    for part, (_, _, text) in zip(("layers that can be left out", "hardly more than chance", "12.5% more"), found, strict=True):
        assert part in text
    theta = results / "search/found_0/theta.tsv"
    theta.write_text(theta.read_text(encoding="utf-8").replace("0.97", "0.25").replace("0.01", "0.25"), encoding="utf-8")
    assert "hardly decided" in found_of(good)[1][2]


def test_comparisons_and_warnings_of_all_come_with_those_of_orders(results, tiny):
    table = summary(networks("found", [0.9], ops="ir_k3_e1 ir_k5_e3 ir_k5_e3"), rule(0.9), random_search(0.9))
    found = findings(results, table, comparisons(table), ranked(), {"found_0": STANDING}, {"found_0": "found_0"}, tiny, 10)
    assert [(about, kind) for about, kind, _ in found] == [
        *[("all", "comparison")] * 2,
        ("all", "warning"),
        ("all", "comparison"),  # of the budget
        ("found_0", "comparison"),  # of the race
        ("first", "comparison"),
    ]
