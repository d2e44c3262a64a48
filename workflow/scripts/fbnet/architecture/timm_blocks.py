"""Architectures as timm's block strings (`ir_r1_k3_s2_e6_c24`), and the names that weights have there."""

from fbnet.errors import InputError
from fbnet.space import OPERATORS, Architecture, Cell


def block_strings(architecture: Architecture) -> list[list[str]]:
    """The argument of timm's `decode_arch_def`: a list of block strings for each stage.

    A layer that is an identity has no block; a stage of such layers alone is left out. Raises InputError that names layer
    and operator, or the norm or channels, that timm cannot express.
    """
    stages = []
    for stage in _blocks(architecture):
        blocks = []  # [repeats, form], of which the first of the repeats has the stride
        for cell, form in stage:
            if blocks and cell.keeps_shape and blocks[-1][1] == form:
                blocks[-1][0] += 1
            else:
                blocks.append([1, form])
        stages.append([form.format(repeats=repeats) for repeats, form in blocks])
    return stages


def model_arguments(architecture: Architecture) -> dict:
    """What timm's `EfficientNet` needs beside its block_args. timm's stem has stride 2: any other is set afterwards."""
    space = architecture.space
    return {"stem_size": space.stem.c_out, "num_features": space.head.c_out, "num_classes": architecture.classes}


def to_timm(architecture: Architecture, weights: dict) -> dict:
    """The state dict of our `Network` under the names of timm's `EfficientNet`. Raises InputError, as `block_strings`."""
    names = module_names(architecture)
    parts = {name: name.rpartition(".") for name in weights}
    return {f"{names[module]}.{parameter}": weights[name] for name, (module, _, parameter) in parts.items()}


def module_names(architecture: Architecture) -> dict[str, str]:
    """A module with weights in our `Network` → its name in timm's `EfficientNet`. Raises InputError, as `block_strings`."""
    names = {"stem.0": "conv_stem", "stem.1": "bn1", "head.0": "conv_head", "head.1": "bn2", "classifier.2": "classifier"}
    inverted = {"expand": ("conv_pw", "bn1"), "depthwise.0": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
    for number, stage in enumerate(_blocks(architecture)):
        for index, (cell, _) in enumerate(stage):
            ours, theirs = f"layers.{int(cell.layer) - 1}", f"blocks.{number}.{index}"
            if OPERATORS[cell.op].kind == "skip":
                names |= {f"{ours}.0": f"{theirs}.conv", f"{ours}.1": f"{theirs}.bn1"}
            else:
                for part, (conv, norm) in inverted.items():
                    names |= {f"{ours}.{part}.0": f"{theirs}.{conv}", f"{ours}.{part}.1": f"{theirs}.{norm}"}
    return names


def _blocks(architecture: Architecture) -> list[list[tuple[Cell, str]]]:
    """The cells that are blocks in timm, stage by stage, each with its form. Raises InputError for what timm cannot express."""
    space = architecture.space
    if space.stem.norm != "bn":
        raise InputError(f"timm's block strings cannot express norm {space.stem.norm}: only bn")
    for cell in (space.stem, space.head):
        _check_channels(cell.layer, cell.c_out)
    path = iter(space.path(architecture.ops))
    stages = [[next(path) for _ in range(count)] for count in space.stages]
    stages = [[(cell, _form(cell)) for cell in stage if not cell.is_identity] for stage in stages]
    if not any(stages):
        raise InputError("timm's block strings cannot express a network of which every layer is an identity")
    return [stage for stage in stages if stage]


def _form(cell: Cell) -> str:
    """A block's string, the number of repeats left open."""
    operator = OPERATORS[cell.op]
    where = f"layer {cell.layer}"
    _check_channels(where, cell.c_out)
    if operator.kind == "skip":
        return f"cn_r{{repeats}}_k1_s{cell.stride}_c{cell.c_out}"
    if operator.kind != "irf" or operator.groups != 1 or operator.depthwise != 1 or operator.se:
        raise InputError(f"timm's block strings cannot express the operator {cell.op} of {where}")
    _check_channels(where, cell.c_in * cell.expansion)
    return f"ir_r{{repeats}}_k{operator.kernel}_s{cell.stride}_e{cell.expansion}_c{cell.c_out}"


def _check_channels(where: str, channels: int) -> None:
    if channels % 8:
        raise InputError(f"timm rounds channels to multiples of 8, but {where} has {channels}")
