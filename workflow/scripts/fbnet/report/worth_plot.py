"""What each operator is worth, beside what it costs: where accuracy is to be had for little time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fbnet.errors import InputError
from fbnet.latency import LatencyTable
from fbnet.latency.table import grid
from fbnet.report.style import plt, put_title, save


def worth_and_cost(rows: Sequence[dict], table: LatencyTable, title: str, path: Path) -> None:
    """Two grids, a line a layer (and its channels) and a column an operator: worth in standard errors, and latency in µs.

    `rows` have `layer`, `op` and `theta`, what the choice adds to a network's score against the layer's mean. Raises InputError
    if a candidate of the table is not among them.
    """
    worth = {(row["layer"], row["op"]): row["theta"] for row in rows}
    layers, ops, costs = grid(table.space, table.operators_us)
    try:
        of_cells = [[worth[cell.layer, cell.choice] for cell in layer] for layer in table.space.layers]
    except KeyError as missing:
        layer, op = missing.args[0]
        raise InputError(f"layer {layer} has no row for {op}") from None
    values, costs = np.array(grid(table.space, of_cells)[2]), np.array(costs)
    width = max(4.5, 1.6 + 0.48 * len(ops))
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(2 * width, 1.5 + 0.24 * len(layers)), layout="constrained")
    most = max(float(np.nanmax(np.abs(values))), 1.0)
    kinds = (
        (values, {"cmap": "PuOr", "vmin": -most, "vmax": most}, "worth, standard errors"),
        (costs, {"cmap": "YlOrBr", "vmin": 0, "vmax": max(float(np.nanmax(costs)), 1e-3)}, "latency, µs"),
    )
    for axes, (shown, colours, label) in zip(panels, kinds, strict=True):
        image = axes.imshow(np.ma.masked_invalid(shown), aspect="auto", **colours)
        for (row, column), value in np.ndenumerate(shown):
            if np.isfinite(value):
                text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}"
                dark = abs(value) > 0.6 * colours["vmax"]
                axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
        axes.set_xticks(range(len(ops)), [op.removeprefix("ir_") for op in ops], rotation=90)
        axes.set_yticks(range(len(layers)), layers)
        axes.set_xlabel("operator")
        figure.colorbar(image, label=label, pad=0.02)
    panels[0].set_ylabel("layer")
    put_title(figure, title)
    save(figure, path, _caption(values, costs, layers, ops))


def _caption(values: np.ndarray, costs: np.ndarray, layers: Sequence[str], ops: Sequence[str]) -> str:
    best, worst = (np.unravel_index(pick(values), values.shape) for pick in (np.nanargmax, np.nanargmin))
    spread = np.nanmax(values, axis=1) - np.nanmin(values, axis=1)
    layer_of = np.array([name.split()[0] for name in layers])  # of a line, which may be of some of its channels
    told = len({*layer_of[spread > 4]})  # of standard errors between the best and the worst of a layer
    names = [
        f"{ops[column].removeprefix('ir_')} in layer {layers[row]} ({values[row, column]:+.1f})" for row, column in (best, worst)
    ]
    known = np.isfinite(values)
    correlation = np.corrcoef(values[known], costs[known])[0, 1] if known.sum() > 2 else np.nan
    return (
        f"Worth most is {names[0]}, least {names[1]}. In {told} of {len({*layer_of})} layers the best and the worst operator are "
        f"more than four standard errors apart. Worth and latency correlate with {correlation:.2f}."
    )
