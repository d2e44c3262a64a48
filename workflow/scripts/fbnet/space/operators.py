"""The operators by name: the one registry that latency table, supernet and final network all build from.

Data only, without torch, so that a space or a config is checked in milliseconds; `blocks` turns an entry into a module.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Operator:
    """What a name stands for.

    kind `irf`: 1×1 convolution to c_in · expansion channels, `depthwise` convolutions of size `kernel` one after the other,
    1×1 convolution to c_out. kind `shift`: the same with a fixed shift by up to kernel // 2 pixels in the depthwise place.
    `groups` > 1 divides the 1×1 convolutions, with a channel shuffle between them; `se` adds squeeze-excite at the end.
    `expansion` None: the space says it, stage by stage.
    """

    name: str
    kind: str
    kernel: int = 1
    expansion: int | None = 1
    groups: int = 1
    depthwise: int = 1
    se: bool = False

    @property
    def family(self) -> str:
        """Operators of one family can share weights: smaller kernels are the middle, less expansion the first channels."""
        if self.kind != "irf":
            return self.name
        depth = f"_d{self.depthwise}" if self.depthwise != 1 else ""
        groups = f"_s{self.groups}_e{self.expansion}" if self.groups > 1 else ""
        return f"irf{depth}{groups}{'_se' if self.se else ''}"

    @property
    def is_candidate(self) -> bool:
        """Whether a searched layer may choose it; the others make up stem and head."""
        return self.kind not in ("conv", "classifier")


OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("skip", "skip"),
        # The expansion is the stage's. `_s2` and `_s4`, further down, count shuffle groups; they are no strides.
        Operator("ir_k1", "irf", kernel=1, expansion=None, depthwise=0),
        Operator("ir_k3", "irf", kernel=3, expansion=None),
        Operator("ir_k5", "irf", kernel=5, expansion=None),
        Operator("ir_k7", "irf", kernel=7, expansion=None),
        Operator("ir_k3_sep", "irf", kernel=3, expansion=None, depthwise=2),
        Operator("ir_k7_sep", "irf", kernel=7, expansion=None, depthwise=2),
        Operator("shuffle", "irf", kernel=3, expansion=None, groups=4),
        Operator("shift_5x5", "shift", kernel=5, expansion=None),
        Operator("basic_block", "basic", kernel=3),
        Operator("ir_k3_e1", "irf", kernel=3, expansion=1),
        Operator("ir_k3_e3", "irf", kernel=3, expansion=3),
        Operator("ir_k3_e6", "irf", kernel=3, expansion=6),
        Operator("ir_k5_e1", "irf", kernel=5, expansion=1),
        Operator("ir_k5_e3", "irf", kernel=5, expansion=3),
        Operator("ir_k5_e6", "irf", kernel=5, expansion=6),
        Operator("ir_k7_e1", "irf", kernel=7, expansion=1),
        Operator("ir_k7_e3", "irf", kernel=7, expansion=3),
        Operator("ir_k7_e6", "irf", kernel=7, expansion=6),
        Operator("ir_k3_s2", "irf", kernel=3, expansion=1, groups=2),
        Operator("ir_k5_s2", "irf", kernel=5, expansion=1, groups=2),
        Operator("ir_k3_s4", "irf", kernel=3, expansion=4, groups=4),
        Operator("ir_k5_s4", "irf", kernel=5, expansion=4, groups=4),
        Operator("ir_k33_e1", "irf", kernel=3, expansion=1, depthwise=2),
        Operator("ir_k33_e3", "irf", kernel=3, expansion=3, depthwise=2),
        Operator("ir_k33_e6", "irf", kernel=3, expansion=6, depthwise=2),
        Operator("ir_k7_sep_e1", "irf", kernel=7, expansion=1, depthwise=2),
        Operator("ir_k7_sep_e3", "irf", kernel=7, expansion=3, depthwise=2),
        Operator("ir_k7_sep_e6", "irf", kernel=7, expansion=6, depthwise=2),
        Operator("ir_k3_e1_se", "irf", kernel=3, expansion=1, se=True),
        Operator("ir_k3_e3_se", "irf", kernel=3, expansion=3, se=True),
        Operator("ir_k3_e6_se", "irf", kernel=3, expansion=6, se=True),
        Operator("ir_k5_e1_se", "irf", kernel=5, expansion=1, se=True),
        Operator("ir_k5_e3_se", "irf", kernel=5, expansion=3, se=True),
        Operator("ir_k5_e6_se", "irf", kernel=5, expansion=6, se=True),
        Operator("ir_k3_s2_se", "irf", kernel=3, expansion=1, groups=2, se=True),
        Operator("ir_k5_s2_se", "irf", kernel=5, expansion=1, groups=2, se=True),
        Operator("ir_k3_s4_se", "irf", kernel=3, expansion=4, groups=4, se=True),
        Operator("ir_k5_s4_se", "irf", kernel=5, expansion=4, groups=4, se=True),
        # Stem and head of every network.
        Operator("conv_k3", "conv", kernel=3),
        Operator("conv_k1", "conv", kernel=1),
        Operator("pool_fc", "classifier"),
    )
}

CANDIDATES = tuple(name for name, operator in OPERATORS.items() if operator.is_candidate)
