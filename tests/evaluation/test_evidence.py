"""Claims follow the numbers: statistics against values computed by hand, and what each finding says and when."""

import math

import pandas as pd
import pytest

from fbnet.evaluation.diagnosis import rank_correlation, warnings
from fbnet.evaluation.evidence import difference, mean_and_sd, sentences


def networks(kind, top1, **columns):
    """Rows of a summary."""
    rows = {
        "network": [f"{kind}_{number}" for number in range(len(top1))],
        "kind": kind,
        "baseline": "random_cpu_8ms",
        "target": "cpu",
        "budget_us": 8000.0,
        "measured_us": 7000.0,
        "latency_us": 7000.0,
        "trainings": 3,
        "top1": top1,
        "top1_sd": math.nan,
        "validation_top1": top1,
    }
    return pd.DataFrame(rows | columns)


def test_mean_and_sd():
    assert mean_and_sd([0.8, 0.9]) == pytest.approx((0.85, math.sqrt(0.005)))
    mean, sd = mean_and_sd([0.8])
    assert mean == 0.8
    assert math.isnan(sd)


def test_the_standard_error_is_that_of_both_means():
    # variances 0.0001 / 3 and 0.0004 / 4 = 0.00003333 + 0.00006667
    found = difference(networks("found", [0.90, 0.91, 0.92]), networks("random", [0.85, 0.87, 0.87, 0.89]))
    variance = 0.0001 / 3 + (2 * 0.02**2) / 3 / 4
    assert found.value == pytest.approx(0.04)
    assert found.error == pytest.approx(math.sqrt(variance))
    assert found.clear
    assert str(found) == f"4.0 points better (± {200 * math.sqrt(variance):.1f} at two standard errors)"


def test_one_network_has_the_spread_of_its_trainings_or_else_that_of_the_others():
    others = networks("random", [0.80, 0.90])  # variance 0.005, of the mean 0.0025
    by_trainings = difference(networks("found", [0.95], top1_sd=0.03), others)
    assert by_trainings.error == pytest.approx(math.sqrt(0.03**2 / 3 + 0.0025))
    by_others = difference(networks("found", [0.95], trainings=1), others)
    assert by_others.error == pytest.approx(math.sqrt(0.005 + 0.0025))
    assert not by_others.clear
    alone = difference(networks("found", [0.95]), networks("random", [0.5]))
    assert math.isinf(alone.error)
    assert not alone.clear
    assert str(alone) == "a difference of +45.0 points, of which a single training each cannot tell whether it is chance"


def test_a_difference_within_the_spread_is_called_so():
    close = sentences(pd.concat([networks("found", [0.86, 0.88]), networks("random", [0.85, 0.87, 0.87, 0.89])]), {})
    [text] = [text for _, text in close if "random" in text]
    assert "within the spread" in text
    assert "better" not in text
    assert "Within 8 ms on cpu, the 2 networks found (found_0, found_1) reach in the mean 87.0%" in text
    worse = sentences(pd.concat([networks("found", [0.70, 0.71]), networks("random", [0.85, 0.87, 0.87, 0.89])]), {})
    assert "16.5 points worse" in worse[0][1]


def test_the_best_by_validation_is_held_against_the_published_network_of_nearest_latency():
    found = networks("found", [0.90, 0.91], top1_sd=0.001, validation_top1=[0.92, 0.91])
    published = networks("published", [0.80, 0.88], top1_sd=0.001, latency_us=[3000.0, 7500.0])
    [text] = [text for _, text in sentences(pd.concat([found, published]), {}) if "published" in text]
    assert text.startswith("found_0, which validates best, is held against published_1")
    assert "2.0 points better" in text
    assert "0.93 × its latency" in text


def test_budgets_are_counted_with_the_table_s_error():
    found = networks("found", [0.9, 0.9, 0.9], latency_us=[7900.0, 8100.0, 9000.0])
    [text] = [text for _, text in sentences(found, {"cpu": 0.02}) if "budget" in text]
    assert text.startswith("2 of 3 networks found keep their latency budget on cpu by measurement")
    assert "found_2 is the furthest, at +12.5% of it" in text
    assert "by the table's prediction" in sentences(networks("found", [0.9], measured_us=math.nan), {})[0][1]


def test_no_baselines_no_claims():
    assert sentences(networks("found", [0.9], budget_us=math.nan, baseline=None), {}) == []


GOOD = {
    "ops": ("ir_k3_e1", "ir_k3_s2", "ir_k5_e3"),
    "probabilities": [[0.9, 0.05, 0.03, 0.02]] * 3,
    "supernet_top1": 0.6,
    "classes": 10,
    "latency_us": 7900.0,
    "budget_us": 8000.0,
    "validation_error": 0.03,
    "judged": pd.DataFrame({"supernet_top1": [0.1, 0.2, 0.3, 0.4, 0.5], "top1": [0.6, 0.7, 0.8, 0.9, 0.95]}),
}


def test_a_search_without_fault_has_no_warning(tiny):
    assert warnings(tiny, **GOOD) == []
    assert warnings(tiny, **GOOD | {"budget_us": math.nan}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ops": ("skip", "ir_k3_e1", "skip")}, "2 of the 2 layers that can be left out are: latency counts too much"),
        ({"probabilities": [[0.26, 0.24, 0.25, 0.25]] * 3}, "Theta has hardly decided"),
        ({"supernet_top1": 0.15}, "hardly more than chance (10.0%)"),
        ({"latency_us": 8500.0}, "6.2% more than its budget of 8 ms, and the table's mean error is 3.0%"),
        (
            {"judged": pd.DataFrame({"supernet_top1": [0.1, 0.2, 0.3, 0.4, 0.5], "top1": [0.9, 0.8, 0.7, 0.6, 0.5]})},
            "over 5 networks, the rank correlation of their accuracies inside it and after training is -1.00",
        ),
    ],
)
def test_each_fault_is_told_with_what_to_change(tiny, change, message):
    [text] = warnings(tiny, **GOOD | change)
    assert message in text


def test_few_networks_or_equal_ones_have_no_order(tiny):
    few = GOOD["judged"].iloc[:4][::-1].assign(top1=[0.6, 0.7, 0.8, 0.9])
    assert warnings(tiny, **GOOD | {"judged": few}) == []
    assert math.isnan(rank_correlation(GOOD["judged"].assign(top1=0.5)))
