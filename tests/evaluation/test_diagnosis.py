"""What is told of a search that went wrong, and what to change."""

import pytest

from fbnet.evaluation.diagnosis import diagnosis

GOOD = {
    "ops": ("ir_k3_e1", "ir_k3_s2", "ir_k5_e3"),
    "probabilities": [[0.9, 0.05, 0.03, 0.02]] * 3,
    "one_shot": 0.6,
    "classes": 10,
}


def test_a_search_without_fault_has_no_sentence(tiny):
    assert diagnosis(tiny, **GOOD) == []


FAULTS = [
    (
        {"ops": ("skip", "ir_k3_e1", "skip")},
        "2 of the 2 layers that can be left out are: latency counts too much. Allow a larger latency_budget",
    ),
    (
        {"probabilities": [[0.26, 0.24, 0.25, 0.25]] * 3},
        "The search has hardly decided (the entropy of theta's probabilities is 100%",
    ),
    ({"one_shot": 0.15}, "one-shot accuracy of the derived architecture is 15.0%, hardly more than chance (10.0%)"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=["skips", "undecided", "chance"])
def test_each_fault_is_told_with_what_to_change(tiny, change, message):
    [text] = diagnosis(tiny, **GOOD | change)
    assert message in text


def test_faults_add_up_and_are_told_from_their_bounds_on(tiny):
    every = {key: value for change, _ in FAULTS for key, value in change.items()}
    assert len(diagnosis(tiny, **GOOD | every)) == 3
    assert diagnosis(tiny, **GOOD | {"ops": ("skip", "skip", "ir_k5_e3")}) == []  # one of two, and layer 2 must halve the image
    assert diagnosis(tiny, **GOOD | {"one_shot": 0.2}) == []
    assert diagnosis(tiny, **GOOD | {"one_shot": 0.2, "classes": 9}) != []


def test_what_is_not_known_is_not_held_against_a_search(tiny):
    assert diagnosis(tiny, **GOOD | {"one_shot": None}) == []
    assert diagnosis(tiny, **GOOD | {"probabilities": []}) == []
    assert diagnosis(tiny, **GOOD | {"probabilities": [[1.0]]}) == []  # a layer without a choice is no decision
