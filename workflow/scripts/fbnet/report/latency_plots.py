"""Pictures of a latency table: what each operator costs, and how well the table predicts whole networks."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fbnet.latency import LatencyTable
from fbnet.latency.table import ends_in_words, grid
from fbnet.report.style import plt, put_title, save
from fbnet.report.words import milliseconds

_MARKERS = {"uniform": ("o", "0.55"), "stratified": ("^", "0.1")}


def heat_map(table: LatencyTable, title: str, path: Path) -> None:
    """A table as a picture: a line a layer, a column an operator, latencies in µs, darker where slower."""
    lines, ops, values = grid(table.space, table.operators_us)
    values = np.array(values)
    shown = np.ma.masked_invalid(values)
    figure, axes = plt.subplots(figsize=(max(4.5, 1.6 + 0.48 * len(ops)), 1.4 + 0.24 * len(values)), layout="constrained")
    most = max(float(shown.max()), 1e-3)
    image = axes.imshow(shown, cmap="YlOrBr", vmin=0, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if value > 0.6 * most else "black")
    axes.set_xticks(range(len(ops)), [op.removeprefix("ir_") for op in ops], rotation=90)
    axes.set_yticks(range(len(values)), lines)
    axes.set_xlabel("operator")
    axes.set_ylabel("layer")
    put_title(figure, f"{title}; {ends_in_words(table, ' µs', '.0f')}")
    figure.colorbar(image, label="latency, µs", pad=0.02)
    save(figure, path, _heat_map_caption(table))


def _heat_map_caption(table: LatencyTable) -> str:
    cells, latencies_us = itertools.chain(*table.space.layers), itertools.chain(*table.operators_us)
    slowest_us, slowest = max(zip(latencies_us, cells, strict=True), key=lambda pair: pair[0])
    ends_us = sum(table.fixed_us) + max(table.heads_us, default=0.0)
    return (
        f"Predicted latencies of this space's networks range from {milliseconds(table.least_us)} to "
        f"{milliseconds(table.most_us)}, of which stem, head and classifier take {milliseconds(ends_us)}. The "
        f"slowest operator is {slowest.choice.removeprefix('ir_')} in layer {slowest.layer}, {slowest_us:.0f} µs."
    )


def scatter(networks: Sequence[dict], title: str, path: Path) -> None:
    """Predicted against measured latencies, with the line of equality and a band of ± 10 % around it.

    `networks` are the rows of a validation: `drawn`, `predicted_us`, `measured_us`; `first_us` and `second_us` may be None.
    """
    figure, axes = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    every = [row[key] / 1000 for row in networks for key in ("predicted_us", "measured_us")]
    ends = np.array([min(every) * 0.96, max(every) * 1.04])
    axes.fill_between(ends, ends * 0.9, ends * 1.1, color="0.92", label="within 10 %", lw=0)
    axes.plot(ends, ends, color="0.6", lw=0.8, label="predicted = measured")
    for drawn, (marker, colour) in _MARKERS.items():
        rows = [row for row in networks if row["drawn"] == drawn]
        x, y = ([row[key] / 1000 for row in rows] for key in ("measured_us", "predicted_us"))
        half = [abs(row["first_us"] - row["second_us"]) / 2000 if row["first_us"] else 0 for row in rows]
        axes.errorbar(
            *(x, y),
            xerr=half,
            fmt=marker,
            ms=4,
            color=colour,
            mec="white",
            mew=0.4,
            elinewidth=0.8,
            label=f"{drawn} random networks (n = {len(rows)})",
        )
    axes.set(xlim=ends, ylim=ends, aspect="equal", ylabel="predicted latency, ms")
    axes.set_xlabel("measured latency, ms (bar: test to retest)")
    axes.legend(frameon=False, fontsize=7, loc="upper left")
    put_title(figure, title)
    save(figure, path)
