"""The bookkeeping of replayed steps; what a GPU makes of them, tests/test_gpu.py shows."""

import logging

import pytest
import torch
from torch import nn

from absent_gpu import fake_graphs
from fbnet.training.replay import EAGER, Replay


@pytest.fixture
def optimizer():
    return torch.optim.Adam([nn.Parameter(torch.zeros(1))], fused=True)


class Doubled:
    def __init__(self):
        self.calls = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return 2 * x


def test_a_step_is_captured_after_the_first_ones_and_replayed_from_then_on(optimizer):
    step = Doubled()
    with fake_graphs():
        replay = Replay(step, usable=True)
        for number in range(EAGER):
            assert replay("weights", optimizer, torch.tensor(float(number))).item() == 2 * number
        assert replay.graph is None
        captured = replay("weights", optimizer, torch.tensor(5.0))
        for number in (6.0, 7.0):
            assert replay("weights", optimizer, torch.tensor(number)) is captured  # of the graph's own memory
            assert replay.inputs[0].item() == number
    assert (step.calls, replay.graph.replays) == (EAGER + 1, 3)
    assert not optimizer.param_groups[0]["capturable"]  # else it would be another in a checkpoint


def test_another_kind_of_step_begins_anew_without_the_memory_of_the_last(optimizer):
    step = Doubled()
    with fake_graphs():
        replay = Replay(step, usable=True)
        for _ in range(EAGER + 1):
            replay("weights", optimizer, torch.ones(()))
        replay("theta", optimizer, torch.ones(()))
        assert (replay.graph, replay.inputs, replay.outputs) == (None, (), None)
        for _ in range(EAGER):
            replay("theta", optimizer, torch.ones(()))
    assert (step.calls, replay.graph.replays) == (2 * EAGER + 2, 1)


def test_a_step_that_no_graph_can_hold_goes_on_without_one(optimizer, caplog, monkeypatch):
    monkeypatch.setattr("fbnet.training.replay._renew_generator", lambda: None)  # a GPU's own
    calls = []

    def step(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        if len(calls) == EAGER + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return 2 * x

    with fake_graphs(), caplog.at_level(logging.WARNING):
        replay = Replay(step, usable=True)
        found = [replay("weights", optimizer, torch.tensor(float(number))).item() for number in range(EAGER + 3)]
    assert found == [2.0 * number for number in range(EAGER + 3)]
    [said] = caplog.messages
    assert "(operation not permitted when stream is capturing)" in said
    assert not optimizer.param_groups[0]["capturable"]


def test_elsewhere_than_on_a_gpu_each_step_is_computed_as_it_is_written(optimizer):
    step = Doubled()
    replay = Replay(step, usable=False)
    assert [replay("weights", optimizer, torch.tensor(float(number))).item() for number in range(4)] == [0, 2, 4, 6]
    assert step.calls == 4
