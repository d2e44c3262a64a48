"""The programs that measure: what a step launches, and that they run through, in a tiny form and on the CPU."""

import sys
from statistics import mean

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import launches


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("soft, weights", 8000),
        ("single path, weights", 1000),
        pytest.param("training one network", 900, marks=pytest.mark.xfail(strict=True, reason="969 of them as yet")),
    ],
)
def test_a_step_dispatches_few_operations(kind, most):
    found = [each.total() for each in launches.counts(kind, draws=16)]
    assert mean(found) <= most


def test_a_path_is_the_same_operations_at_any_batch_size():
    """On fake tensors and on real ones."""
    [few] = launches.operations(launches.search("single_path", launches.FEW, 2), "weights", 1)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    [many] = launches.operations(launches.search("single_path", 192, 2), "weights", 1, mode)
    assert few == many


@pytest.mark.parametrize(
    ("name", "has_kernel"),
    [("mm.default", True), ("relu_.default", True), ("_to_copy.default", True), ("_fused_sgd_.tensor_lr", True)]
    + [(name, False) for name in ("view.default", "split_with_sizes.default", "detach.default", "new_empty.default")],
)
def test_views_and_allocations_launch_nothing(name, has_kernel):
    assert launches.launches(name) == has_kernel
