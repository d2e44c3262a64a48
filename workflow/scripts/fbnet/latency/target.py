"""What a latency is the latency of: the engine, device and settings that an inference runs with."""

import argparse
import re
import shlex
from dataclasses import asdict, dataclass, fields

from fbnet.errors import InputError

OPSET = 20  # of ONNX, for what is measured and for what is exported

TABLE_SETTINGS = ("batch", "dtype")  # what a target may say of a table that is brought
UNITS_US = {"us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6, "ns": 1e-3}


@dataclass(frozen=True)
class Target:
    """How networks run where they will be used; each field is a key of a target in the configuration and a line of its table.

    `engine` torch: `device` cpu or cuda, `dtype`, `memory_format`, `mode` eager, compile (every block by torch.compile) or
    graphs (CUDA graphs); `allocator`, on the cpu in mode eager, keep (a line in the program leads the C library to keep what is
    freed) or plain (without it). `engine` onnxruntime: on the CPU, in float32 or int8. `engine` command: whatever runs an ONNX
    file and says how long an inference takes; `pattern` finds that in its output, in its own unit or in `unit`. `engine`
    analytic: no device; 1 µs stands for 1000 of what `cost` counts.
    """

    engine: str = "torch"
    device: str = "cpu"
    threads: int = 1
    batch: int = 1
    dtype: str = "float32"
    memory_format: str = "contiguous"
    mode: str = "eager"
    allocator: str = "keep"
    cost: str = "macs"
    command: str = ""
    pattern: str = ""
    unit: str = "us"

    @property
    def is_eager_on_cpu(self) -> bool:
        """Whether networks run as modules in PyTorch on the CPU."""
        return (self.engine, self.device, self.mode) == ("torch", "cpu", "eager")

    @property
    def other_allocator(self) -> str:
        """What `allocator` is not."""
        return "plain" if self.allocator == "keep" else "keep"

    def settings(self) -> dict[str, str]:
        """The fields that count for this engine and device, as text."""
        of_command = {"command", "pattern", "unit"}
        unused = {"cost", *of_command} | (set() if self.is_eager_on_cpu else {"allocator"})
        if self.engine == "analytic":
            unused = {field.name for field in fields(self)} - {"engine", "cost"}
        elif self.engine == "command":
            unused = {field.name for field in fields(self)} - {"engine", "threads", "batch", *of_command}
        elif self.engine == "onnxruntime":
            unused |= {"memory_format", "mode"}
        elif self.device == "cuda":
            unused |= {"threads"}
        return {key: str(value) for key, value in asdict(self).items() if key not in unused}

    def check(self, name: str) -> None:
        """Raise InputError for settings that exclude one another; `name` is how the sentence calls the target."""
        if self.engine == "onnxruntime" and (self.device != "cpu" or self.dtype not in ("float32", "int8")):
            raise InputError(
                f"{name}: engine is 'onnxruntime' with device {self.device!r} and dtype {self.dtype!r}, but it is measured on "
                f"the cpu in float32 or int8 only: choose these, or engine 'torch'"
            )
        if self.engine == "torch" and self.dtype == "int8":
            raise InputError(f"{name}: dtype is 'int8', but that is for engine 'onnxruntime': choose that")
        if self.engine == "command":
            self._check_command(name)
        elif self.command or self.pattern:
            raise InputError(f"{name}: command and pattern are for engine 'command', but engine is {self.engine!r}: choose that")
        if self.allocator == "plain" and not self.is_eager_on_cpu:
            raise InputError(
                f"{name}: allocator is 'plain', but that is for PyTorch on the cpu in mode 'eager', where it makes a difference: "
                f"leave it out"
            )
        if self.engine == "torch" and self.mode == "graphs" and self.device != "cuda":
            raise InputError(f"{name}: mode is 'graphs', but CUDA graphs need device 'cuda': choose mode 'eager' or 'compile'")
        if self.engine == "torch" and self.dtype == "float16" and self.device == "cpu":
            raise InputError(f"{name}: dtype is 'float16', but the cpu computes in float32 or bfloat16: choose one of these")

    def _check_command(self, name: str) -> None:
        if (self.device, self.dtype) != ("cpu", "float32"):
            raise InputError(
                f"{name}: device is {self.device!r} and dtype {self.dtype!r}, but a command says itself where and in what it "
                f"computes, and gets a float32 file: leave both out"
            )
        if not any("{model}" in word for word in words(self.command, f"{name}: command")):
            raise InputError(f"{name}: command is {self.command!r}, but must have {{model}} where the ONNX file is to stand")
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise InputError(f"{name}: pattern is {self.pattern!r}, but is no regular expression: {error}") from None
        if "latency" not in groups:
            raise InputError(
                f"{name}: pattern is {self.pattern!r}, but must have a group (?P<latency>...) where the number stands, and may "
                f"have (?P<unit>...)"
            )


def words(command: str, name: str = "command") -> list[str]:
    """A command as the words that a program is started with; no shell sees it. Raises InputError if quotes are not closed."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise InputError(f"{name} is {command!r}, but cannot be split into words: {str(error).lower()}") from None


CHOICES = {
    "engine": ("torch", "onnxruntime", "command", "analytic"),
    "device": ("cpu", "cuda"),
    "dtype": ("float32", "bfloat16", "float16", "int8"),
    "memory_format": ("contiguous", "channels_last"),
    "mode": ("eager", "compile", "graphs"),
    "allocator": ("keep", "plain"),
    "cost": ("macs", "params"),
    "unit": tuple(UNITS_US),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a program an option for each setting of a target."""
    for field in fields(Target):
        kind = {"choices": CHOICES[field.name]} if field.name in CHOICES else {"type": field.type}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default, **kind)


def from_options(arguments: argparse.Namespace) -> Target:
    """The target that these options describe; whoever measures it checks it, since a table from elsewhere may be of any."""
    return Target(**{field.name: getattr(arguments, field.name) for field in fields(Target)})
