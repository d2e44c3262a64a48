"""Claims follow the numbers: statistics against values computed by hand, and what each finding says and when."""

import math

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from fbnet.evaluation.diagnosis import rank_correlation, warnings
from fbnet.evaluation.evidence import difference, sentences
from fbnet.evaluation.significance import mean_and_sd


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


def test_welch_s_interval_by_hand():
    # variances 0.0001 / 3 = 3.333e-5 and (2 · 0.02²) / 3 / 4 = 6.667e-5, together 1e-4;
    # degrees of freedom 1e-8 / (3.333e-5² / 2 + 6.667e-5² / 3) = 4.909, of which t is 2.585
    found = difference(networks("found", [0.90, 0.91, 0.92]), networks("random", [0.85, 0.87, 0.87, 0.89]))
    assert found.value == pytest.approx(0.04)
    assert found.error == pytest.approx(0.01)
    assert found.freedom == pytest.approx(54 / 11)
    assert found.half_width == pytest.approx(0.02585, abs=1e-5)
    assert found.significant
    assert str(found) == "4.0 percentage points better (95 % confidence interval +1.4 to +6.6)"


def test_two_against_two_need_more_than_two_standard_errors():
    found = difference(networks("found", [0.89, 0.91]), networks("random", [0.86, 0.88]))  # t of 2 degrees of freedom: 4.303
    assert found.freedom == pytest.approx(2)
    assert found.value / found.error == pytest.approx(3 / 2**0.5)
    assert found.half_width == pytest.approx(4.3027 * 0.01 * 2**0.5, rel=1e-4)
    assert not found.significant
    assert str(found) == "a difference of +3.0 percentage points, not significant (95 % confidence interval -3.1 to +9.1)"


ACCURACIES = st.lists(st.integers(0, 1000), min_size=2, max_size=8).map(lambda hits: [hit / 1000 for hit in hits])


@given(ACCURACIES, ACCURACIES)
def test_groups_and_runs_of_single_networks_agree_with_scipy(one, other):
    assume(len({*one}) > 1 and len({*other}) > 1)
    expected = ttest_ind(one, other, equal_var=False)
    interval = expected.confidence_interval(0.95)
    (mean, sd), (other_mean, other_sd) = map(mean_and_sd, (one, other))
    single = networks("found", [mean], top1_sd=sd, trainings=len(one))
    other_single = networks("random", [other_mean], top1_sd=other_sd, trainings=len(other))
    group, other_group = networks("found", one), networks("random", other)
    for pair in ((group, other_group), (single, other_single), (single, other_group), (group, other_single)):
        found = difference(*pair)
        assert found.freedom == pytest.approx(expected.df)
        assert (found.value - found.half_width, found.value + found.half_width) == pytest.approx(tuple(interval), abs=1e-9)


def test_one_run_of_one_network_is_a_sample_from_the_others_spread():
    others = [0.80, 0.84, 0.90]
    found = difference(networks("found", [0.95], trainings=1), networks("random", others))
    expected = ttest_ind([0.95], others)  # with one spread for both, the classical test
    assert found.freedom == expected.df == 2
    assert found.value / found.error == pytest.approx(expected.statistic)
    turned = difference(networks("random", others), networks("published", [0.95], trainings=1))
    assert (turned.value, turned.error, turned.freedom) == pytest.approx((-found.value, found.error, found.freedom))


def test_one_run_against_one_tells_nothing():
    for trainings, sd in ((1, math.nan), (3, 0.01)):
        alone = difference(networks("found", [0.95], trainings=1), networks("random", [0.5], trainings=trainings, top1_sd=sd))
        assert math.isinf(alone.half_width)
        assert not alone.significant
    assert str(alone) == "a difference of +45.0 percentage points; a single training run cannot tell if that is chance"


def test_equal_accuracies_have_no_spread():
    same = difference(networks("found", [0.9, 0.9]), networks("random", [0.9, 0.9]))
    assert (same.half_width, same.significant) == (0, False)


def test_a_difference_that_is_not_significant_is_called_so():
    close = sentences(pd.concat([networks("found", [0.86, 0.88]), networks("random", [0.85, 0.87, 0.87, 0.89])]), {})
    [text] = [text for _, text in close if "random" in text]
    assert "not significant" in text
    assert "better" not in text
    assert "Within 8.00 ms on cpu, the 2 derived architectures (found_0, found_1) reach a test accuracy of 87.0%" in text
    worse = sentences(pd.concat([networks("found", [0.70, 0.71]), networks("random", [0.85, 0.87, 0.87, 0.89])]), {})
    assert "16.5 percentage points worse (95 % confidence interval -1" in worse[0][1]
    one = sentences(pd.concat([networks("found", [0.9], trainings=1), networks("random", [0.8], trainings=1)]), {})[0][1]
    assert "found_0 reaches a test accuracy of 90.0%, 1 random architecture 80.0%" in one
    assert "1 training run each" in one


def test_the_best_by_validation_is_compared_with_the_published_network_of_nearest_latency():
    found = networks("found", [0.90, 0.91], top1_sd=0.001, validation_top1=[0.92, 0.91])
    published = networks("published", [0.80, 0.88], top1_sd=0.001, latency_us=[3000.0, 7500.0])
    [text] = [text for _, text in sentences(pd.concat([found, published]), {}) if "published" in text]
    assert text.startswith("found_0, which has the best validation accuracy, compared with published_1")
    assert "2.0 percentage points better" in text
    assert "0.93 × its latency" in text


def test_budgets_are_counted_with_the_table_s_error():
    found = networks("found", [0.9, 0.9, 0.9], latency_us=[7900.0, 8100.0, 9000.0])
    [text] = [text for _, text in sentences(found, {"cpu": 0.02}) if "budget" in text]
    assert text.startswith("2 of 3 derived architectures keep their budget on cpu in measured and rescaled latency, within the")
    assert "of 2.0%; the slowest, found_2, is 12.5% above its budget" in text
    [(_, predicted)] = sentences(networks("found", [0.9], measured_us=math.nan), {})
    assert "in predicted latency; the slowest, found_0, is 12.5% below its budget" in predicted


def test_no_baselines_no_claims():
    assert sentences(networks("found", [0.9], budget_us=math.nan, baseline=None), {}) == []


GOOD = {
    "ops": ("ir_k3_e1", "ir_k3_s2", "ir_k5_e3"),
    "probabilities": [[0.9, 0.05, 0.03, 0.02]] * 3,
    "supernet_top1": 0.6,
    "classes": 10,
    "latency_us": 7900.0,
    "measured": True,
    "budget_us": 8000.0,
    "mape": 0.03,
    "ranked": pd.DataFrame({"supernet_top1": [0.1, 0.2, 0.3, 0.4, 0.5], "top1": [0.6, 0.7, 0.8, 0.9, 0.95]}),
}


def test_a_search_without_fault_has_no_warning(tiny):
    assert warnings(tiny, **GOOD) == []
    assert warnings(tiny, **GOOD | {"budget_us": math.nan}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ops": ("skip", "ir_k3_e1", "skip")}, "2 of the 2 layers that can be left out are: latency counts too much"),
        ({"probabilities": [[0.26, 0.24, 0.25, 0.25]] * 3}, "The search has hardly decided"),
        ({"supernet_top1": 0.15}, "hardly more than chance (10.0%)"),
        ({"latency_us": 8500.0}, "is 8.50 ms, 6.2% more than its budget of 8.00 ms, while the table's MAPE is 3.0%"),
        (
            {"ranked": pd.DataFrame({"supernet_top1": [0.1, 0.2, 0.3, 0.4, 0.5], "top1": [0.9, 0.8, 0.7, 0.6, 0.5]})},
            "rank correlation of one-shot accuracy with accuracy after training is -1.00 (n = 5 architectures)",
        ),
    ],
)
def test_each_fault_is_told_with_what_to_change(tiny, change, message):
    [text] = warnings(tiny, **GOOD | change)
    assert message in text


def test_few_networks_or_equal_ones_have_no_order(tiny):
    few = GOOD["ranked"].iloc[:4][::-1].assign(top1=[0.6, 0.7, 0.8, 0.9])
    assert warnings(tiny, **GOOD | {"ranked": few}) == []
    assert math.isnan(rank_correlation(GOOD["ranked"].assign(top1=0.5)))
