"""Claims follow the numbers: statistics against values computed by hand, and what each finding says and when."""

import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from fbnet.evaluation.evidence import Slope, comparisons, difference, sentences, what_latency_buys
from fbnet.evaluation.significance import mean_and_sd
from summaries import networks, random_search, rule, summary


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


@settings(deadline=None)
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


BOUGHT = networks("ranked", [0.5, 0.6, 0.6, 0.7, 0.8], latency_us=[math.exp(ln) for ln in range(5)])


def test_what_latency_buys_by_hand():
    # x = 0 … 4 (mean 2), y of mean 0.64: Sxy = 2 · 0.14 + 0.04 + 0.06 + 2 · 0.16 = 0.7, Sxx = 10, slope 0.07;
    # residuals 0, 0.03, −0.04, −0.01, 0.02: their squares 0.003 over 3 degrees of freedom, over Sxx: 1e-4
    assert what_latency_buys(BOUGHT) == pytest.approx((0.07, 1e-4, 3))


def test_few_networks_or_equal_latencies_do_not_say_what_latency_buys():
    assert what_latency_buys(BOUGHT[:4]) is None
    assert what_latency_buys(BOUGHT.assign(latency_us=5.0)) is None


def test_a_difference_at_equal_latency_by_hand():
    # As above, 0.04 with variances 3.333e-5 (2) and 6.667e-5 (3), but the derived ones have e times the latency, which buys
    # 0.07 more: −0.03; the variance of the slope comes on top: 1e-4 + 1e-4; degrees of freedom
    # 4e-8 / (3.333e-5² / 2 + 6.667e-5² / 3 + 1e-8 / 3) = 7.448
    derived = networks("found", [0.90, 0.91, 0.92], latency_us=math.e)
    others = networks("random", [0.85, 0.87, 0.87, 0.89], latency_us=1.0)
    found = difference(derived, others, Slope(0.07, 1e-4, 3))
    assert (found.value, found.error, found.freedom) == pytest.approx((-0.03, math.sqrt(2e-4), 7.448), rel=1e-3)
    twice = difference(derived.assign(latency_us=math.e**2), others, Slope(0.07, 1e-4, 3))
    assert (twice.value, twice.error) == pytest.approx((0.04 - 0.14, math.sqrt(1e-4 + 4e-4)))
    assert difference(derived.assign(latency_us=1.0), others, Slope(0.07, 1e-4, 3)) == difference(derived, others)
    # a network of a single run: the others' variance 2.667e-4 times 5/4, and that of the slope
    single = difference(derived[:1].assign(trainings=1), others, Slope(0.07, 1e-4, 3))
    assert (single.value, single.error, single.freedom) == pytest.approx((-0.04, math.sqrt(2.667e-4 * 1.25 + 1e-4), 3), rel=1e-3)


def test_the_error_of_a_random_search_is_its_own():
    found = difference(networks("found", [0.9], top1_sd=0.03), random_search(0.8, pool=8, error=0.02))
    # 0.03² / 3 = 3e-4 (2), and 4e-4 (7): 4.9e-7 / (4.5e-8 + 2.2857e-8) = 7.221
    assert (found.value, found.error, found.freedom) == pytest.approx((0.1, math.sqrt(7e-4), 7.221), rel=1e-3)
    alone = difference(networks("found", [0.9], trainings=1), random_search(0.8, drawn=1, pool=1, error=math.inf))
    assert math.isinf(alone.error)


FOUND = networks("found", [0.86, 0.87, 0.88])
RANDOM = networks("random", [0.70, 0.72, 0.74, 0.72])


def test_there_is_a_comparison_with_each_baseline_of_the_budget():
    rules = [rule(0.8), rule(0.95, "log_macs", latency_us=14000.0)]
    aside = [networks("published", [0.99], baseline=None), networks("random", [0.99], baseline="cpu_9ms", ops="another")]
    found = comparisons(summary(FOUND, *rules, RANDOM, networks("ranked", [0.5], baseline=None), *aside, random_search(0.73)))
    assert found["against"].tolist() == ["random", "random_search", "macs", "log_macs"]
    assert found["other"].tolist() == [
        *("random_cpu_8ms", "random_search_fbnet_cpu_8ms"),
        *("rule_macs_cpu_8ms", "rule_log_macs_cpu_8ms"),
    ]
    assert found["others"].tolist() == [4, 1, 1, 1]
    assert found["other_top1"].tolist() == pytest.approx([0.72, 0.73, 0.8, 0.95])
    assert set(found["networks"]) == {"found_0 found_1 found_2"}
    assert found["relative"][0] == pytest.approx(0.15 / 0.72)
    assert found["at_equal_latency"].all()
    slope = what_latency_buys(summary(*rules, RANDOM, networks("ranked", [0.5]), *aside))
    assert found["difference"][3] == pytest.approx(0.87 - 0.95 + slope.value * math.log(2))


def test_each_method_is_compared_for_itself():
    other = networks("found", [0.6, 0.61, 0.62], method="soft")
    own = random_search(0.5, method="soft")
    found = comparisons(summary(FOUND, other, RANDOM, random_search(0.73), own))
    assert found[["method", "against", "other"]].to_numpy().tolist() == [
        ["fbnet", "random", "random_cpu_8ms"],
        ["fbnet", "random_search", "random_search_fbnet_cpu_8ms"],
        ["soft", "random", "random_cpu_8ms"],
        ["soft", "random_search", "random_search_soft_cpu_8ms"],
    ]
    assert found["verdict"].tolist() == ["better", "better", "worse", "better"]
    texts = said(FOUND, other, RANDOM, random_search(0.73), own)
    assert len([text for kind, text in texts if kind == "comparison" and "budget" not in text]) == 4


def test_few_networks_are_compared_as_they_are():
    found = comparisons(summary(FOUND, rule(0.8, latency_us=3000.0)))
    assert not found["at_equal_latency"].any()
    assert found["difference"].tolist() == pytest.approx([0.07])


ONCE = networks("found", [0.9], trainings=1)


@pytest.mark.parametrize(
    ("derived", "other", "verdict"),
    [
        (FOUND, rule(0.50), "better"),
        (FOUND, rule(0.99), "worse"),
        (FOUND, rule(0.86), "equal"),
        (FOUND, rule(0.86, trainings=1), "equal"),
        (ONCE, rule(0.50, trainings=1), "unknown"),
        (ONCE, random_search(0.5, drawn=1, pool=1, error=math.inf), "unknown"),
    ],
)
def test_verdicts(derived, other, verdict):
    assert comparisons(summary(derived, other))["verdict"].tolist() == [verdict]


def said(*groups, mape=None):
    """The sentences on networks, and whether each is a comparison or a warning."""
    table = summary(*groups)
    return sentences(table, comparisons(table), mape or {})


def test_a_difference_that_is_not_significant_is_called_so():
    others = networks("random", [0.85, 0.86, 0.87, 0.88])
    text = said(FOUND, others)[0][1]
    assert "not significant" in text
    assert "better" not in text
    assert text.startswith(
        "Within 8.00 ms on cpu, the 3 derived architectures (found_0, found_1, found_2) reach a test accuracy "
    )
    assert (
        "of 87.0% on average, 4 random architectures 86.5%, relative to theirs +0.6%: a difference of +0.5 percentage points"
        in text
    )
    worse = said(networks("found", [0.70, 0.71]), others)[0][1]
    assert "16.0 percentage points worse (95 % confidence interval -1" in worse
    one = said(ONCE, networks("random", [0.8], trainings=1))[0][1]
    assert "found_0 reaches a test accuracy of 90.0%, 1 random architecture 80.0%" in one
    assert "a single training run cannot tell if that is chance; 1.00 × the measured latency, 1 training run each." in one


def test_a_comparison_at_equal_latency_says_so():
    others = networks("random", [0.70, 0.72, 0.74, 0.75, 0.76], latency_us=[5000.0, 6000.0, 7000.0, 7500.0, 7900.0])
    [text] = [text for _, text in said(FOUND, others) if "random" in text]
    assert re.search(r"relative to theirs \+18\.5%: at equal measured latency 1\d\.\d percentage points better ", text)
    assert "; 1.06 × the measured latency" in text


def test_predicted_latency_is_called_so_and_no_budget_too():
    found = FOUND.assign(measured_us=math.nan, budget_us=math.nan)
    others = networks("random", [0.70, 0.72, 0.74, 0.75, 0.76], latency_us=[5000.0, 6000.0, 7000.0, 7500.0, 7900.0])
    [(_, text)] = said(found, others)
    assert text.startswith("Within the latency of the derived architecture on cpu, the 3 derived architectures (found_0, ")
    assert "at equal predicted latency" in text
    assert "× the predicted latency, 3 training runs each." in text


def warned(*groups):
    return [text for kind, text in said(*groups) if kind == "warning"]


def test_a_search_that_beats_a_rule_is_compared_and_not_warned_of():
    (_, text), *_ = said(FOUND, rule(0.5))
    assert "the architecture with the most MACs (a rule that costs nothing) 50.0%: 37.0 percentage points better" in text
    assert "relative" not in text
    assert warned(FOUND, rule(0.5), rule(0.5, "log_macs"), random_search(0.6)) == []
    assert warned(FOUND, networks("random", [0.99, 0.98])) == []  # what random networks reach in the mean is no method


@pytest.mark.parametrize(
    ("baselines", "names"),
    [
        ([rule(0.86)], "the rule “the most MACs”"),
        ([rule(0.99)], "the rule “the most MACs”"),
        ([rule(0.5), rule(0.86, "log_macs")], "the rule “the largest Σ log MACs”"),
        ([random_search(0.87)], "random search at its own cost"),
        ([random_search(0.99), rule(0.5)], "random search at its own cost"),
        ([rule(0.99), random_search(0.99)], "random search at its own cost or the rule “the most MACs”"),
    ],
    ids=["equal", "worse", "other rule", "random search", "worse than random search", "both"],
)
def test_a_search_that_beats_no_rule_or_random_search_is_warned_of(baselines, names):
    [text] = warned(FOUND, *baselines)
    assert text.startswith(f"Within 8.00 ms on cpu, the searches are not shown to beat {names}. Train the supernet longer;")
    assert "the search is not shown to beat" in warned(FOUND[:1], *baselines)[0]


@pytest.mark.parametrize(
    ("drawn", "pool", "words"),
    [
        (3, 8, "random search at the same cost (the best of 3 by validation) 70.0%"),
        (8, 8, "random search at the same cost (the best of 8 by validation) 70.0%"),
        (1, 8, "random search at the same cost (a single one) 70.0%"),
        (
            20,
            8,
            "random search (the best of 8 by validation; the search's cost would allow 20: set evaluation.random to it) 70.0%",
        ),
    ],
)
def test_random_search_says_how_many_it_chose_from(drawn, pool, words):
    [text] = [text for _, text in said(FOUND, random_search(0.7, drawn, pool)) if "random" in text]
    assert words in text


def test_the_best_by_validation_is_compared_with_the_published_network_of_nearest_latency():
    found = networks("found", [0.90, 0.91], top1_sd=0.001, validation_top1=[0.92, 0.91])
    published = networks("published", [0.80, 0.88], top1_sd=0.001, latency_us=[3000.0, 7500.0], baseline=None)
    [text] = [text for _, text in said(found, published) if "published" in text]
    assert text.startswith("found_0, which has the best validation accuracy, compared with published_1")
    assert "2.0 percentage points better" in text
    assert "0.93 × its latency" in text


def test_budgets_are_counted_with_the_table_s_error():
    found = networks("found", [0.9, 0.9, 0.9], latency_us=[7900.0, 8100.0, 9000.0])
    [(_, text)] = said(found, mape={"cpu": 0.02})
    assert text.startswith("2 of 3 derived architectures keep their budget on cpu in measured and rescaled latency, within the")
    assert "of 2.0%; the slowest, found_2, is 12.5% above its budget" in text
    [(_, predicted)] = said(networks("found", [0.9], measured_us=math.nan))
    assert "in predicted latency; the slowest, found_0, is 12.5% below its budget" in predicted


def test_no_baselines_no_claims():
    assert said(networks("found", [0.9], budget_us=math.nan)) == []
