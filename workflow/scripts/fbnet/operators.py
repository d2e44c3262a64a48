"""The operators by name: the one registry that latency table, supernet and final network all build from.

Data only, without torch, so that a space or a config is checked in milliseconds; `blocks` turns an entry into a module.
"""

from dataclasses import dataclass

from fbnet.errors import InputError

STRIDES = (1, 2, 4)


@dataclass(frozen=True)
class Operator:
    """What a name stands for: its kind of block, kernel size, expansion (of c_in) and groups of the 1×1 convolutions."""

    name: str
    kind: str
    kernel: int = 1
    expansion: int = 1
    groups: int = 1

    @property
    def is_candidate(self) -> bool:
        """Whether a searched layer may choose it; the others make up stem and head."""
        return self.kind in ("irf", "skip")

    def check(self, c_in: int, c_out: int, stride: int) -> None:
        """Raise InputError if the operator cannot serve this shape."""
        shape = f"{self.name} with {c_in} → {c_out} channels at stride {stride}"
        if stride not in STRIDES:
            raise InputError(f"{shape} cannot be built: the stride must be one of {', '.join(map(str, STRIDES))}")
        for channels in (c_in, c_in * self.expansion, c_out):
            if channels % self.groups:
                raise InputError(f"{shape} cannot be built: {channels} channels do not divide into {self.groups} groups")


OPERATORS = {
    operator.name: operator
    for operator in (
        # The 9 candidates of FBNet, Table 2. `_s2` counts shuffle groups; it is no stride.
        Operator("ir_k3_e1", "irf", kernel=3, expansion=1),
        Operator("ir_k3_s2", "irf", kernel=3, expansion=1, groups=2),
        Operator("ir_k3_e3", "irf", kernel=3, expansion=3),
        Operator("ir_k3_e6", "irf", kernel=3, expansion=6),
        Operator("ir_k5_e1", "irf", kernel=5, expansion=1),
        Operator("ir_k5_s2", "irf", kernel=5, expansion=1, groups=2),
        Operator("ir_k5_e3", "irf", kernel=5, expansion=3),
        Operator("ir_k5_e6", "irf", kernel=5, expansion=6),
        Operator("skip", "skip"),
        # Stem and head of every network.
        Operator("conv_k3", "conv", kernel=3),
        Operator("conv_k1", "conv", kernel=1),
        Operator("pool_fc", "classifier"),
    )
}

CANDIDATES = tuple(name for name, operator in OPERATORS.items() if operator.is_candidate)
