"""Whole steps of a search and of a training, and what holds for each on whatever device."""

from functools import partial

import numpy as np
import torch
from torch import nn

from fbnet.evaluation.retraining import Training
from fbnet.latency.torch_engine import DTYPES
from fbnet.search import Search, Supernet

KINDS = [(sampling, phase) for sampling in ("soft", "single_path") for phase in ("weights", "theta")]


class Outputs:
    """Data types and layouts of what the modules of these kinds put out, by name."""

    def __init__(self, root: nn.Module, kinds: tuple[type, ...]):
        self.found: dict[str, tuple[torch.dtype, bool]] = {}
        for name, module in root.named_modules():
            if isinstance(module, kinds) and not isinstance(module, nn.Identity):
                module.register_forward_hook(partial(self._note, name))

    def _note(self, name: str, module: nn.Module, inputs: tuple, y: torch.Tensor) -> None:
        self.found[name] = (y.dtype, is_last(y))


def is_last(y: torch.Tensor) -> bool:
    return y.ndim < 4 or y.is_contiguous(memory_format=torch.channels_last)


def layer_outputs(supernet: Supernet) -> list[torch.Tensor]:
    """Every layer's output as it is made, soft or of a path."""
    outputs = []
    for layer in supernet.layers:
        for name in ("forward", "path"):
            method = getattr(layer, name)
            setattr(layer, name, lambda *arguments, method=method: outputs.append(method(*arguments)) or outputs[-1])
    return outputs


def steps_of(search: Search, phase: str, count: int = 3, crop_padding: int = 1) -> None:
    search.phase = phase
    search.begin()
    batches = search.batches[phase]
    for _, (images, labels) in zip(range(count), batches.training(0), strict=False):
        torch.manual_seed(search.step)
        search.advance(batches.augmented(images, crop_padding, False), labels)
        search.step += 1
    search.step = 0


def check_search(search: Search, phase: str, precision: str) -> None:
    """Three steps of a phase, on whatever device and with whatever casts."""
    parameters = search.optimizers[phase].param_groups[0]["params"]
    before = [parameter.detach().clone() for parameter in parameters]
    outputs = layer_outputs(search.supernet)
    steps_of(search, phase)
    assert {(y.dtype, is_last(y)) for y in outputs} == {(DTYPES[precision], True)}
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    moved = [not torch.equal(old, parameter) for old, parameter in zip(before, parameters, strict=True)]
    assert all(moved) if search.settings.sampling == "soft" or phase == "theta" else sum(moved) > len(gradients) / 2
    means = search.means.read(search.ranks)
    assert 2.0 < means["ce"] < 3.0
    assert np.isinf(means["broken"])


def gradients_of(search: Search, phase: str) -> torch.Tensor:
    """All gradients of a first step, without the crops, which each device draws on its own."""
    steps_of(search, phase, count=1, crop_padding=0)
    parameters = search.optimizers[phase].param_groups[0]["params"]
    return torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in parameters])


def check_training(training: Training, precision: str) -> None:
    """Four steps, on whatever device and with whatever casts, and the moving average after them."""
    start = {name: value.clone() for name, value in training.average.state_dict().items()}
    outputs = Outputs(training.network, (nn.Conv2d, nn.BatchNorm2d))
    training.begin()
    for _, (images, labels) in zip(range(4), training.batches["train"].training(0), strict=False):
        training.advance(training.batches["train"].augmented(images, 1, False), labels)
        training.step += 1
    assert set(outputs.found.values()) == {(DTYPES[precision], True)}
    assert {parameter.grad.dtype for parameter in training.network.parameters()} == {torch.float32}
    means = training.means.read(training.ranks)
    assert 1.5 < means["ce"] < 3.0
    assert np.isinf(means["broken"])
    averages = training.average.state_dict()
    for name, own in training.network.state_dict().items():
        assert averages[name].dtype == torch.float32
        assert not torch.equal(averages[name], start[name]), name
        assert not torch.equal(averages[name], own), name
