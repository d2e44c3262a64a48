"""Architectures drawn as stage diagrams, to be read in grey, with a caption that the data have written."""

import itertools
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from fbnet.evaluation.words import counted
from fbnet.report.style import plt, save
from fbnet.space import OPERATORS, Cell, SearchSpace

SHADES = {1: "#f7f7e3", 3: "#bfe0d3", 5: "#5aa9c4", 7: "#10406b"}  # by kernel size; their greys are as far apart
GROUPS = {2: "////", 4: "xxxxx"}  # hatches


def stage_diagram(architectures: Mapping[str, Sequence[str]], space: SearchSpace, title: str, path: Path) -> None:
    """Architectures side by side, from images to logits: a line a layer, a block as wide as its expansion.

    `architectures` are lists of operators by name. The larger the kernel, the darker the block; an identity leaves nothing but
    the line that runs through. Raises InputError if one does not fit the space.
    """
    columns = {name: space.network_cells(ops, space.classes)[:-1] for name, ops in architectures.items()}
    row, block, label, left = 0.2, 1.0, 0.68, 1.62  # inches
    names = [[part for line in name.split("\n") for part in textwrap.wrap(line, 25)] for name in columns]
    head = 0.14 + 0.13 * max(1, *map(len, names))
    shown = [cell for cells in columns.values() for cell in cells]
    legend = _legend(shown)
    width = left + (block + label) * len(columns) + 0.1
    legend_columns = max(1, int(width / 1.6))
    legend_height = 0.2 + 0.165 * math.ceil(len(legend) / legend_columns)
    count = len(space.layers) + 2
    title_height = 0.14 * math.ceil(len(title) / int(width * 15)) + 0.12
    body = head + row * count
    height = title_height + body + legend_height
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, legend_height / height, 1, body / height))
    axes.set(xlim=(0, width), ylim=(body, 0))
    axes.axis("off")
    _stages(axes, space, columns, head, row, width)
    most = max(6, *(cell.expansion for cell in shown))
    for column, (cells, lines) in enumerate(zip(columns.values(), names, strict=True)):
        x = left + column * (block + label) + block / 2
        axes.text(
            x - block / 2, head - 0.06, "\n".join(lines), ha="left", va="bottom", fontsize=7, weight="bold", linespacing=1.05
        )
        axes.plot([x, x], [head + 0.02, body - 0.02], color="0.35", lw=0.8, zorder=1)
        for at, cell in enumerate(cells):
            y = head + row * (at + 0.5)
            _draw(axes, cell, x, y, block * cell.expansion / most, 0.62 * row)
            text = "identity" if cell.is_identity else "skip, 1×1" if cell.op == "skip" else cell.choice.removeprefix("ir_")
            muted = "0.45" if cell.op == "skip" or not OPERATORS[cell.op].is_candidate else "0.1"
            axes.text(x + block / 2 + 0.05, y, text, va="center", fontsize=6.5, color=muted)
    figure.legend(
        *(list(legend.values()), list(legend)),
        **{"loc": "lower left", "bbox_to_anchor": (0.0, 0.0), "ncols": legend_columns, "frameon": False, "fontsize": 6.5},
        **{"handlelength": 1.8, "columnspacing": 1.0, "handletextpad": 0.5, "labelspacing": 0.35},
    )
    figure.text(
        *(0.08 / width, 1 - 0.08 / height, textwrap.fill(title, int(width * 15))), fontsize=8, va="top", ha="left"
    )  # constrained layout, which places titles, would move the rows
    save(figure, path, _diagram_caption(columns, space))


def _stages(axes, space: SearchSpace, columns: Mapping[str, Sequence[Cell]], top: float, row: float, width: float) -> None:
    """Bands, names and output shapes of the stages, and the numbers of the layers; of channels that differ, least and most."""
    offsets = [0, *itertools.accumulate(space.stages)]
    stages = enumerate(zip(offsets[:-1], space.stages, strict=True), 1)
    for x, what, side in ((0.08, "stage", "left"), (0.56, "output", "left"), (1.52, "layer", "right")):
        axes.text(x, top - 0.06, what, ha=side, va="bottom", fontsize=6.5, color="0.35")
    spans = [
        ("stem", space.stem, 0, 1),
        *((f"stage {number}", space.layers[offset][0], offset + 1, count) for number, (offset, count) in stages),
        ("head", space.head, offsets[-1] + 1, 1),
    ]
    for at, (name, cell, start, count) in enumerate(spans):
        y = top + row * start
        if at % 2:
            axes.add_patch(Rectangle((0, y), width, row * count, fc="0.945", ec="none", zorder=0))
        height, wide = (-(-side // cell.stride) for side in (cell.height, cell.width))
        axes.text(0.08, y + row / 2, name, va="center", fontsize=6.5, weight="bold")
        channels = sorted({cells[start].c_out for cells in columns.values()})
        of_all = "–".join(map(str, dict.fromkeys([channels[0], channels[-1]])))
        axes.text(0.56, y + row / 2, f"{of_all}×{height}×{wide}", va="center", fontsize=6.5)
        for line in range(count):
            number = str(start + line) if cell.layer.isdigit() else ""
            stride = f"↓{cell.stride}" if line == 0 and cell.stride > 1 else ""
            axes.text(1.33, y + row * (line + 0.5), stride, va="center", ha="right", fontsize=6.5)
            axes.text(1.52, y + row * (line + 0.5), number, va="center", ha="right", fontsize=6.5, color="0.35")


def _draw(axes, cell: Cell, x: float, y: float, width: float, height: float) -> None:
    """A cell around (x, y)."""
    operator = OPERATORS[cell.op]
    if cell.is_identity:
        return
    style = _look(cell)
    axes.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, zorder=2, **style))
    if operator.depthwise > 1:
        axes.plot([x - width / 2, x + width / 2], [y, y], color="white", lw=1.4, zorder=3)
        axes.plot([x - width / 2, x + width / 2], [y, y], color="0.1", lw=0.5, zorder=4)
    if operator.se:
        axes.plot([x], [y], "o", ms=4, mfc="white", mec="0.1", mew=0.8, zorder=5)


def _look(cell: Cell) -> dict:
    operator = OPERATORS[cell.op]
    if cell.op == "skip":
        return {"fc": "white", "ec": "0.25", "lw": 0.9, "ls": (0, (2, 1.2))}
    if not operator.is_candidate:
        return {"fc": "white", "ec": "0.45", "lw": 0.8}
    edge = {"lw": 1.6 if operator.kind == "basic" else 0.6, "ls": (0, (1, 1)) if operator.kind == "shift" else "-"}
    return {"fc": SHADES[operator.kernel], "ec": "0.1", "hatch": GROUPS.get(operator.groups)} | edge


def _legend(cells: Sequence[Cell]) -> dict:
    """The handles, by their words, of what the cells show."""
    searched = [(cell, OPERATORS[cell.op]) for cell in cells if OPERATORS[cell.op].is_candidate]
    blocks = [operator for cell, operator in searched if cell.op != "skip"]
    kernels = sorted({operator.kernel for operator in blocks})
    handles = {f"kernel {kernel}×{kernel}": Patch(fc=SHADES[kernel], ec="0.1", lw=0.6) for kernel in kernels}
    for groups in sorted({operator.groups for operator in blocks} - {1}):
        handles[f"{groups} groups, shuffled"] = Patch(fc="white", ec="0.1", lw=0.6, hatch=GROUPS[groups])
    if any(operator.se for operator in blocks):
        handles["squeeze-excite"] = Line2D([], [], ls="", marker="o", ms=4, mfc="white", mec="0.1", mew=0.8)
    if any(operator.depthwise > 1 for operator in blocks):
        handles["two depthwise"] = Line2D([], [], color="0.1", lw=0.5)
    if any(operator.kind == "shift" for operator in blocks):
        handles["shift"] = Patch(fc="white", ec="0.1", lw=0.6, ls=(0, (1, 1)))
    if any(operator.kind == "basic" for operator in blocks):
        handles["basic block"] = Patch(fc="white", ec="0.1", lw=1.6)
    if any(cell.op == "skip" and not cell.is_identity for cell, _ in searched):
        handles["skip as 1×1 convolution"] = Patch(fc="white", ec="0.25", lw=0.9, ls=(0, (2, 1.2)))
    if any(cell.is_identity for cell, _ in searched):
        handles["identity: the line alone"] = Line2D([], [], color="0.35", lw=0.8)
    handles["width: expansion"] = Line2D([], [], color="0.1", lw=0.6, marker="|", ms=5, mew=0.6)
    return handles


def _diagram_caption(columns: Mapping[str, Sequence[Cell]], space: SearchSpace) -> str:
    layers = len(space.layers)
    if len(columns) > 1:
        searched = [[cell.choice for cell in cells[1:-1]] for cells in columns.values()]
        same = [ops[0] for ops in zip(*searched, strict=True) if len(set(ops)) == 1]
        pairs = list(itertools.combinations(zip(columns, searched, strict=True), 2))
        differing = {(a, b): sum(x != y for x, y in zip(one, other, strict=True)) for (a, one), (b, other) in pairs}
        (a, b), least = min(differing.items(), key=lambda item: item[1])
        names = " and ".join(name.partition("\n")[0] for name in (a, b))
        differ = f"{counted(least, 'layer')} {'differs' if least == 1 else 'differ'}"
        alike = f"{names} are nearest to one another: {differ}" if least else f"{names} are the same"
        return f"{len(columns)} architectures agree in {len(same)} of {layers} layers; {alike}."
    (cells,) = columns.values()
    searched = cells[1:-1]
    blocks = [cell for cell in searched if cell.op != "skip"]
    kernels = [OPERATORS[cell.op].kernel for cell in blocks]
    of_kernels = ", ".join(f"{kernels.count(kernel)} of {kernel}×{kernel}" for kernel in sorted(set(kernels)))
    skips = sum(cell.op == "skip" for cell in searched)
    identities = sum(cell.is_identity for cell in searched)
    text = f"Of {layers} layers, {skips or 'none'} {'is a skip' if skips == 1 else 'are skips'}"
    text += f" ({identities} of them identities)" if skips else ""
    if not blocks:
        return text + "."
    mean = statistics.mean(cell.expansion for cell in blocks)
    return f"{text}; of the kernels, {of_kernels}; the mean expansion is {mean:.1f}."
