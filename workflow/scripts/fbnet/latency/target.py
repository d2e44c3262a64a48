"""What a latency is the latency of: the engine, device and settings that an inference runs with."""

import argparse
from dataclasses import asdict, dataclass, fields

from fbnet.errors import InputError

OPSET = 20  # of ONNX, for what is measured and for what is exported

TABLE_SETTINGS = ("batch", "dtype")  # what a target may say of a table that is brought


@dataclass(frozen=True)
class Target:
    """How networks run where they will be used; each field is a key of a target in the configuration and a line of its table.

    `engine` torch: `device` cpu or cuda, `dtype`, `memory_format`, `mode` eager, compile (every block by torch.compile) or
    graphs (CUDA graphs). `engine` onnxruntime: on the CPU, in float32. `engine` analytic: no device; 1 µs stands for 1000 of
    what `cost` counts.
    """

    engine: str = "torch"
    device: str = "cpu"
    threads: int = 1
    batch: int = 1
    dtype: str = "float32"
    memory_format: str = "contiguous"
    mode: str = "eager"
    cost: str = "macs"

    def settings(self) -> dict[str, str]:
        """The fields that count for this engine and device, as text."""
        unused = {"cost"}
        if self.engine == "analytic":
            unused = {field.name for field in fields(self)} - {"engine", "cost"}
        elif self.engine == "onnxruntime":
            unused |= {"memory_format", "mode"}
        elif self.device == "cuda":
            unused |= {"threads"}
        return {key: str(value) for key, value in asdict(self).items() if key not in unused}

    def check(self, name: str) -> None:
        """Raise InputError for settings that exclude one another; `name` is how the sentence calls the target."""
        if self.engine == "onnxruntime" and (self.device, self.dtype) != ("cpu", "float32"):
            raise InputError(
                f"{name}: engine is 'onnxruntime' with device {self.device!r} and dtype {self.dtype!r}, but it is measured on "
                f"the cpu in float32 only: choose these, or engine 'torch'"
            )
        if self.engine == "torch" and self.mode == "graphs" and self.device != "cuda":
            raise InputError(f"{name}: mode is 'graphs', but CUDA graphs need device 'cuda': choose mode 'eager' or 'compile'")
        if self.engine == "torch" and self.dtype == "float16" and self.device == "cpu":
            raise InputError(f"{name}: dtype is 'float16', but the cpu computes in float32 or bfloat16: choose one of these")


CHOICES = {
    "engine": ("torch", "onnxruntime", "analytic"),
    "device": ("cpu", "cuda"),
    "dtype": ("float32", "bfloat16", "float16"),
    "memory_format": ("contiguous", "channels_last"),
    "mode": ("eager", "compile", "graphs"),
    "cost": ("macs", "params"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a program an option for each setting of a target."""
    for field in fields(Target):
        kind = {"choices": CHOICES[field.name]} if field.name in CHOICES else {"type": int}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default, **kind)


def from_options(arguments: argparse.Namespace) -> Target:
    """The target that these options describe. Raises InputError for settings that exclude one another."""
    target = Target(**{field.name: getattr(arguments, field.name) for field in fields(Target)})
    target.check("latency")
    return target
