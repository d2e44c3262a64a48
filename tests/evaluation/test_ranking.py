"""The order of architectures: Kendall's τ, regret, chance and ceiling, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from fbnet.evaluation.ranking import ceiling, ranking
from summaries import networks, summary

TOP1 = [0.5, 0.6, 0.7, 0.8, 0.9]
RANDOM = networks("random", TOP1[:2], macs=[1, 2], params=[5, 4], predicted_us=[1.0, 1.0])
RANKED = networks("ranked", TOP1[2:], macs=[3, 5, 4], params=[3, 2, 1], predicted_us=[1.0, 1.0, 2.0], baseline=None)
SEARCH = networks("found", [0.9], search="first")
NAMES = [*RANDOM["network"], *RANKED["network"]]


def one_shot(values):
    return pd.DataFrame({"name": ["first", *NAMES], "supernet_top1": [0.99, *values]})


def runs(*tops):
    """A row for each network and training run."""
    rows = [(network, seed, top1) for seed, top in enumerate(tops) for network, top1 in zip(NAMES, top, strict=True)]
    return pd.DataFrame(rows, columns=["network", "seed", "top1"])


def ordered(table, inside=(0.1, 0.2, 0.3, 0.4, 0.5), tops=(TOP1,)):
    return ranking(table, runs(*tops), {"first": one_shot(inside), "second": one_shot(inside[::-1])})


def test_each_order_by_hand():
    found = ordered(summary(SEARCH, RANDOM, RANKED), [0.1, 0.2, 0.4, 0.3, 0.35]).set_index("by")
    assert found.index.tolist() == ["supernet", "macs", "params", "latency", "chance"]  # of a single run there is no ceiling
    assert set(found["target"]) == {"cpu"}
    assert set(found["networks"]) == {5}
    assert found["search"].dropna().to_dict() == {"supernet": "first"}
    # Of 10 pairs the supernet turns 2 round, the third with the two above it, and puts the third first.
    assert tuple(found.loc["supernet", ["tau", "regret"]]) == pytest.approx(((8 - 2) / 10, 0.9 - 0.7))
    assert tuple(found.loc["macs", ["tau", "regret"]]) == pytest.approx(((9 - 1) / 10, 0.9 - 0.8))
    assert tuple(found.loc["params", ["tau", "regret"]]) == pytest.approx((-1, 0.9 - 0.5))
    # Latency tells the last from the 4 others alone: τ-b is 4 / √(4 · 10).
    assert tuple(found.loc["latency", ["tau", "regret"]]) == pytest.approx((4 / math.sqrt(40), 0))
    assert tuple(found.loc["chance", ["tau", "regret"]]) == pytest.approx((0, 0.9 - 0.7))
    # The variance of τ of n random orders is 2 (2n + 5) / 9n (n − 1): for 5 it is 30 / 180.
    assert found["tau_by_chance"].unique() == pytest.approx([1.96 * math.sqrt(1 / 6)])


def test_of_several_that_are_first_alike_the_regret_is_the_mean():
    found = ordered(summary(SEARCH, RANDOM, RANKED), [0.3, 0.1, 0.1, 0.3, 0.2]).set_index("by")
    assert found.loc["supernet", "regret"] == pytest.approx(0.9 - (0.5 + 0.8) / 2)


def test_each_search_is_held_against_the_random_networks_of_its_target():
    both = networks("found", [0.9, 0.8], search=["first", "second"])
    other = networks("random", [0.1] * 4, target="gpu")  # too few there to be ordered
    found = ordered(summary(both, RANDOM, RANKED, other))
    inside = found[found["by"] == "supernet"]
    assert inside["search"].tolist() == ["first", "second"]
    assert inside["tau"].tolist() == pytest.approx([1, -1])
    assert set(found["target"]) == {"cpu"}


def test_fewer_than_five_networks_have_no_order():
    assert ordered(summary(SEARCH, RANDOM, RANKED[:2])).empty
    twice = RANKED.assign(ops=[*RANKED["ops"][:2], RANDOM["ops"][0]])
    assert ordered(summary(SEARCH, RANDOM, twice)).empty  # one of them is there twice


def test_what_tells_nothing_apart_has_no_order():
    found = ordered(summary(SEARCH, RANDOM, RANKED), [0.1] * 5).set_index("by")
    assert tuple(found.loc["supernet", ["tau", "regret"]]) == pytest.approx((0, 0.9 - 0.7))


def test_two_runs_and_more_have_a_ceiling():
    found = ordered(summary(SEARCH, RANDOM, RANKED), tops=(TOP1, TOP1[::-1])).set_index("by")
    assert tuple(found.loc["training", ["tau", "regret"]]) == pytest.approx((-1, 0.4))


RUNS = np.array([[0.1, 0.2, 0.3], [0.1, 0.4, 0.2], [0.8, 0.2, 0.5], [0.2, 0.3, 0.6]]).T  # of networks A, B, C


@pytest.mark.parametrize(
    ("count", "tau", "regret"),
    [
        # A < B < C and A < C < B: one pair of three is turned. C put first stays 0.2 behind B, and B 0.1 behind C.
        (2, 1 / 3, (0.2 + 0.1) / 2),
        # one against the mean of two, three ways:
        # A < B < C, the others .45 .3 .35: B < C < A, τ −1/3; C is put first, 0.1 behind A
        # A < C < B, the others .45 .2 .4: B < C < A, τ −1; B is put first, 0.25 behind A
        # B < C < A, the others .1 .3 .25: A < C < B, τ −1; A is put first, 0.2 behind B
        (3, (-1 / 3 - 1 - 1) / 3, (0.1 + 0.25 + 0.2) / 3),
        # two against two, three ways, each in both directions:
        # .1 .3 .25 and .5 .25 .55: A < C < B and B < A < C, τ −1/3; B 0.3 behind C, C 0.05 behind B
        # .45 .2 .4 and .15 .35 .4: B < C < A and A < B < C, τ −1/3; A 0.25 behind C, C 0.05 behind A
        # .15 .25 .45 and .45 .3 .35: A < B < C and B < C < A, τ −1/3; C 0.1 behind A, A 0.3 behind C
        (4, -1 / 3, (0.3 + 0.05 + 0.25 + 0.05 + 0.1 + 0.3) / 6),
    ],
)
def test_the_ceiling_is_one_half_of_the_runs_against_the_other(count, tau, regret):
    assert ceiling(RUNS[:, :count]) == pytest.approx({"tau": tau, "regret": regret})
