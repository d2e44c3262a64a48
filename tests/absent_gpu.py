"""A GPU that is not there, for tests and for counting: what a step does there, found out without one.

`fake_gpu` has fake tensors on "cuda": they know data types, layouts and devices, hold no numbers, and refuse whatever a GPU would
have to be waited for. PyTorch runs no backward pass on them without a driver. `CudaAutocast` lets the CPU's tensors, real or
fake, be cast as CUDA's autocast casts, backward passes included; steps are then made for CUDA's kernels by `made_for`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import nn
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# What CUDA's autocast computes in float32 (PyTorch, ATen/autocast_mode.h), a test holds both lists against that ...
_NAMES = """acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus layer_norm
    native_layer_norm rms_norm group_norm frobenius_norm nuclear_norm cosine_similarity poisson_nll_loss cosine_embedding_loss
    nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss
    multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist
    cdist renorm logsumexp upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d
    upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
    upsample_trilinear3d upsample_bicubic2d _upsample_bicubic2d_aa"""
FLOAT32 = frozenset(_NAMES.split())
# ... and what it gives a float32 result, unless the call says another data type.
FLOAT32_UNLESS_SAID = frozenset(
    ("prod", "softmax", "log_softmax", "cumprod", "cumsum", "linalg_vector_norm", "linalg_matrix_norm", "sum")
)
OF_PYTHON = {"cross_entropy": "nll_loss"}  # functions of torch.nn.functional, by what they call


class CudaAutocast(TorchFunctionMode):
    """Where the CPU's autocast is on, its tensors are cast as CUDA's would be; what is computed in bfloat16 is so on both."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.__name__
        name = OF_PYTHON.get(name, name[2:-2] if name.startswith("__") else name)
        if not torch.is_autocast_enabled("cpu") or not any(map(_is_low, args)):
            return func(*args, **kwargs)
        if name in FLOAT32:
            args, kwargs = tree_map(lambda value: value.float() if _is_low(value) else value, (args, kwargs))
        elif name in FLOAT32_UNLESS_SAID and kwargs.get("dtype") is None:
            kwargs = kwargs | {"dtype": torch.float32}
        return func(*args, **kwargs)


def _is_low(value) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)


class FakeGraph:
    """A CUDA graph whose capture computes, and that counts how often it was replayed."""

    def __init__(self):
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


def fake_graphs():
    """A context in which PyTorch has streams and graphs, of a GPU that computes nothing by itself."""
    nothing = mock.MagicMock()
    names = dict.fromkeys(("Stream", "current_stream", "stream", "set_stream", "graph"), nothing)
    return mock.patch.multiple(torch.cuda, CUDAGraph=FakeGraph, **names)


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Within it "cuda" is a device with 64 GB, of fake tensors; what is patched is PyTorch's asking for a driver."""
    with ExitStack() as stack:
        answers = {"mem_get_info": lambda device=None: (2**36, 2**36), "is_bf16_supported": lambda *_: True}
        stack.enter_context(mock.patch.multiple(torch.cuda, **answers))
        stack.enter_context(fake_graphs())
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        # without a driver PyTorch takes another library than cuDNN for convolutions, with other layouts
        stack.enter_context(mock.patch.object(torch._C, "_conv_determine_backend_memory_format", _of_cudnn))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
        stack.enter_context(mock.patch.object(torch.Tensor, "backward", _backward))
        # of this operation PyTorch has no fake, where it is given a generator
        stack.enter_context(mock.patch.object(torch.Tensor, "exponential_", lambda self, *_, **__: self))
        # images and labels of a dataset are NumPy's, and so are tensors made from them until they are on the device
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def _of_cudnn(x: torch.Tensor, weight: torch.Tensor, _backend) -> torch.memory_format:
    formats = map(suggest_memory_format, (x, weight))
    return torch.channels_last if torch.channels_last in formats else torch.contiguous_format


def _apply(self: nn.Module, function, recurse: bool = True) -> nn.Module:
    """Module.to and its like for fake parameters, whose tensors PyTorch cannot swap."""
    for module in self.children():
        _apply(module, function)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            self._parameters[name] = nn.Parameter(function(parameter.detach()), parameter.requires_grad)
    for name, buffer in self._buffers.items():
        if buffer is not None:  # a norm's count of batches is a fake of a known number, which PyTorch would move for real
            self._buffers[name] = function(buffer if buffer.ndim else torch.empty((), dtype=buffer.dtype))
    return self


def _backward(self: torch.Tensor) -> None:
    """Gradients for the leaves of a fake tensor's graph, of the form that they would have."""
    nodes, seen = [self.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)


class Operations(TorchDispatchMode):
    """What PyTorch dispatches within it: `calls`, as (operation, data types of the results, numbers among the arguments)."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[str, tuple, tuple]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        results = found if isinstance(found, tuple | list) else (found,)
        dtypes = tuple(one.dtype for one in results if isinstance(one, torch.Tensor))
        numbers = tuple(value for value in (*args, *(kwargs or {}).values()) if isinstance(value, int | float | bool))
        self.calls.append((str(func).removeprefix("aten."), dtypes, numbers))
        return found

    def counts(self) -> Counter:
        """How often each was called; a profiler's own marks are left out."""
        return Counter(name for name, *_ in self.calls if not name.startswith("profiler."))


_of_meta = torch.library.Library("aten", "IMPL")  # PyTorch has fakes of this operation for rates that are numbers only
_of_meta.impl("_fused_sgd_.tensor_lr", lambda *_, **__: None, "Meta")

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "bincount")


class NoWaits(TorchDispatchMode):
    """Raises where a GPU would be waited for: numbers read from it, shapes that depend on them, copies that block the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if any(name.startswith(one) for one in WAITS):
            raise AssertionError(f"{func} waits for the device")
        found = func(*args, **kwargs)
        if name in ("copy_", "_to_copy"):
            source = args[1] if name == "copy_" else args[0]
            blocking = not (args[2] if name == "copy_" and len(args) > 2 else kwargs.get("non_blocking", False))
            if source.device.type != found.device.type and blocking:
                raise AssertionError(f"{func} from {source.device} to {found.device} waits for the device")
        return found
