"""An ONNX file as onnxruntime runs it on the CPU."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from fbnet.latency.target import Target


class Session:
    """A model, given as its bytes or the path of its file, with random images."""

    def __init__(self, model: bytes | Path, target: Target):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = target.threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        [images] = self.session.get_inputs()
        self.images = {images.name: random_images(images.shape)}

    def time(self) -> float:
        """µs of one inference."""
        start = time.perf_counter_ns()
        self.session.run(None, self.images)
        return (time.perf_counter_ns() - start) / 1000


def random_images(shape: Sequence[int]) -> np.ndarray:
    """float32 [N, C, H, W], always the same."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def alone(target: Target) -> Callable[[Path], Session]:
    """What makes sessions in a process that runs nothing else (see `OwnProcesses`)."""
    return partial(Session, target=target)
