"""Cells: one operator at one place of a network, with its shapes."""

from dataclasses import dataclass

from fbnet.errors import InputError
from fbnet.space.operators import OPERATORS

STRIDES = (1, 2, 4)


@dataclass(frozen=True)
class Cell:
    """One operator at one place of the network: input [N, c_in, height, width] → [N, c_out, ⌈height/stride⌉, ⌈width/stride⌉].

    `layer` is "stem", "head", or the number of a searched layer, counted from 1. `expansion` is the factor from c_in to the
    channels between the 1×1 convolutions. `norm` follows each convolution: `bn` (batch norm), `frozen` (batch norm whose
    statistics and affine parameters stay put), `gn8` (group norm with so many groups), or `none` (a bias in its place). Of an
    `elastic` cell c_out is a choice of its stage.
    """

    layer: str
    op: str
    c_in: int
    c_out: int
    height: int
    width: int
    stride: int
    expansion: int = 1
    norm: str = "bn"
    elastic: bool = False

    @property
    def choice(self) -> str:
        """The name of this choice in its layer: the operator, and where they are a choice the channels: `ir_k3_e6_c24`."""
        return f"{self.op}_c{self.c_out}" if self.elastic else self.op

    @property
    def build_key(self) -> tuple:
        """What is built, wherever it stands: cells that agree in it are the same module on the same input."""
        return (self.op, self.c_in, self.c_out, self.height, self.width, self.stride, self.expansion, self.norm)

    @property
    def keeps_shape(self) -> bool:
        """Whether output and input have the same shape."""
        return self.stride == 1 and self.c_in == self.c_out

    @property
    def is_identity(self) -> bool:
        """Whether there is nothing to compute."""
        return self.op == "skip" and self.keeps_shape

    def check(self) -> None:
        """Raise InputError, with operator, shape and reason, if the operator cannot serve this shape."""
        operator = OPERATORS[self.op]
        if self.stride not in STRIDES:
            self._refuse(f"the stride must be one of {', '.join(map(str, STRIDES))}")
        if self.stride > min(self.height, self.width):
            self._refuse("the stride is larger than the input")
        middle = self.c_in * self.expansion
        for channels in (self.c_in, middle, self.c_out):
            if channels % operator.groups:
                self._refuse(f"{channels} channels do not divide into {operator.groups} groups")
        if self.norm.startswith("gn"):
            normalised = {"irf": (middle, self.c_out), "shift": (middle, self.c_out), "basic": (self.c_in, self.c_out)}
            fixed = () if operator.kind == "classifier" or self.is_identity else (self.c_out,)
            for channels in normalised.get(operator.kind, fixed):
                if channels % int(self.norm[2:]):
                    self._refuse(f"{channels} channels do not divide into the {self.norm[2:]} groups of norm {self.norm}")

    def _refuse(self, reason: str) -> None:
        shape = f"{self.c_in} → {self.c_out} channels, {self.height}×{self.width}, stride {self.stride}"
        raise InputError(f"{self.op} cannot be built for {shape}: {reason}")
