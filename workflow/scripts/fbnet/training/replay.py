"""A training step as a CUDA graph: a GPU need not wait for its host to launch thousands of small kernels."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from fbnet.runtime import log

EAGER = 2  # steps before the capture: they make the optimiser's state, and load and choose kernels


class Replay:
    """A step that is computed as it is written for `EAGER` times, and from then on replayed as a CUDA graph.

    `step` maps tensors to tensors, and all else that it reads or writes are tensors that stay where they are. With another
    `kind` it begins anew. What a call returns holds until the next. Not `usable`: it is always computed as it is written.
    """

    def __init__(self, step: Callable, usable: bool):
        self.step, self.usable = step, usable
        self.stream = torch.cuda.Stream() if usable else None
        self._forget(None)

    def __call__(self, kind: str, optimizer: Optimizer, *inputs: Tensor):
        """One step on these inputs, which ends with that of `optimizer`."""
        if not self.usable:
            return self.step(*inputs)
        if kind != self.kind:
            self._forget(kind)
        if self.graph is None and self.done == EAGER:
            self._capture(optimizer, inputs)
        if self.graph is None:
            self.done += 1
            return self._beside(inputs)
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.outputs

    def _forget(self, kind: str | None) -> None:
        """Its memory with it: the steps of two kinds would take twice as much."""
        self.kind, self.done = kind, 0
        self.graph, self.inputs, self.outputs = None, (), None

    def _beside(self, inputs: tuple[Tensor, ...]):
        """As written, on the stream of the capture, since autograd remembers on which one it accumulates."""
        usual = torch.cuda.current_stream()
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            outputs = self.step(*inputs)
        usual.wait_stream(self.stream)
        return outputs

    def _capture(self, optimizer: Optimizer, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(given.clone() for given in inputs)
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        for group in optimizer.param_groups:  # Adam's counts of steps lie on the device, as those of all fused optimisers
            group["capturable"] = True
        try:
            # Only this thread is watched: another one may pin memory for the images that come next.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.outputs = self.step(*self.inputs)
            self.graph = graph
        except RuntimeError as error:
            torch.cuda.set_stream(usual)
            _renew_generator()
            self._forget(self.kind)
            self.usable = False
            log.warning("No CUDA graph of a step here (%s): it goes on without, slower.", str(error).strip().partition("\n")[0])
        finally:
            for group in optimizer.param_groups:
                group["capturable"] = False


def _renew_generator() -> None:
    """A state of its own for this GPU's generator, whose old one would draw no more: it takes part in a capture that failed."""
    used, new = torch.cuda.default_generators[torch.cuda.current_device()], torch.Generator("cuda")
    new.manual_seed(used.initial_seed())
    used.graphsafe_set_state(new.graphsafe_get_state())
