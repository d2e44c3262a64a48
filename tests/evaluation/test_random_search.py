"""Random search: what is to be expected of the best by validation of k networks, against values by hand and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnet.evaluation.random_search import affordable, random_search

VALIDATION, TEST = [[0.3, 0.1, 0.4, 0.2]], [[0.5, 0.9, 0.6, 0.3]]


def test_two_of_four_by_hand():
    # Of the 6 pairs the third network wins its 3, the first the 2 with those below it, the fourth 1, the second none.
    found = random_search(VALIDATION, TEST, 2)
    assert found.chances == pytest.approx([2 / 6, 0, 3 / 6, 1 / 6])
    assert found.top1 == pytest.approx((2 * 0.5 + 3 * 0.6 + 1 * 0.3) / 6)  # 0.516667
    # between single random searches: (2 · 0.016667² + 3 · 0.083333² + 0.216667²) / 6 = 0.011389
    assert found.top1_sd == pytest.approx(math.sqrt(0.0113889), rel=1e-5)
    # Without one of the four, the two best of three are chosen in 2 and 1 of 3 pairs: 0.5 (without the first: 2 · 0.6 + 0.3),
    # 0.566667 (2 · 0.6 + 0.5), 0.433333 (2 · 0.5 + 0.3), 0.566667 (2 · 0.6 + 0.5), in the mean 0.516667;
    # 3/4 · (0.016667² + 0.05² + 0.083333² + 0.05²) = 0.0091667
    assert found.error == pytest.approx(math.sqrt(0.0091667), rel=1e-5)


def test_the_expectation_is_the_mean_over_runs():
    validation, test = [[0.3, 0.1, 0.4, 0.2], [0.1, 0.2, 0.3, 0.4]], [[0.5, 0.9, 0.6, 0.3], [0.2, 0.4, 0.7, 0.8]]
    found = random_search(validation, test, 2)
    singles = [random_search([one], [other], 2) for one, other in zip(validation, test, strict=True)]
    assert singles[1].top1 == pytest.approx((0.4 + 2 * 0.7 + 3 * 0.8) / 6)
    assert found.top1 == pytest.approx((singles[0].top1 + singles[1].top1) / 2)
    assert found.chances == pytest.approx([1 / 6, 0.5 / 6, 2.5 / 6, 2 / 6])


def test_one_is_the_mean_and_all_is_the_best():
    one = random_search(VALIDATION, TEST, 1)
    assert one.chances == pytest.approx([0.25] * 4)
    assert one.top1 == pytest.approx(np.mean(TEST))
    assert one.error == pytest.approx(np.std(TEST, ddof=1) / 2)  # the standard error of a mean
    every = random_search(VALIDATION, TEST, 4)
    assert (every.top1, every.top1_sd) == pytest.approx((0.6, 0))
    # Only without the best another is chosen, the first: 3/4 · (0.025² · 3 + 0.075²) = 0.005625
    assert every.error == pytest.approx(0.075)


def test_a_pool_of_one_says_nothing_of_its_error():
    alone = random_search([[0.3], [0.4]], [[0.5], [0.6]], 1)
    assert alone.chances == pytest.approx([1])
    assert alone.top1 == pytest.approx(0.55)
    assert math.isinf(alone.error)


@st.composite
def pools(draw_from):
    runs, count = draw_from(st.integers(1, 3)), draw_from(st.integers(1, 6))
    hits = st.lists(st.integers(0, 500), min_size=count, max_size=count, unique=True)
    validation, test = (np.array([draw_from(hits) for _ in range(runs)]) / 500 for _ in range(2))
    return validation, test, draw_from(st.integers(1, count))


@settings(deadline=None)
@given(pools())
def test_it_is_the_mean_over_all_subsets(pool):
    validation, test, drawn = pool
    chosen = [
        (run, max(subset, key=lambda network: validation[run, network]))
        for run in range(len(validation))
        for subset in itertools.combinations(range(validation.shape[1]), drawn)
    ]
    found = random_search(validation, test, drawn)
    tests = [test[run, network] for run, network in chosen]
    assert found.chances == pytest.approx(np.bincount([network for _, network in chosen], minlength=test.shape[1]) / len(chosen))
    assert (found.top1, found.top1_sd) == pytest.approx((np.mean(tests), np.std(tests)), abs=1e-9)


def test_a_network_among_equals_is_chosen_once():
    assert random_search([[0.5, 0.5, 0.5]], [[0.1, 0.2, 0.3]], 2).chances.sum() == pytest.approx(1)


def test_what_a_search_could_have_trained_instead():
    assert affordable(10.0, 3.0) == 3
    assert affordable(9.0, 3.0) == 3
    assert affordable(2.0, 3.0) == 1  # no less than one network is a search
