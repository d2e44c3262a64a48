"""Pictures of a search, to be read in grey: each carries a caption that the data have written."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fbnet.errors import InputError
from fbnet.evaluation.words import counted
from fbnet.report.style import plt, put_title, save
from fbnet.report.words import milliseconds


def theta_strips(rows: Sequence[dict], title: str, path: Path) -> None:
    """The probabilities of all candidates over the epochs: a strip a layer, in it a line a candidate, darker where likelier.

    `rows` have `epoch`, `layer`, `op`, `probability`. Raises InputError if an epoch lacks some of the candidates.
    """
    epochs, layers = _probabilities(rows)
    strip, gap = 0.37, 0.09  # inches
    pitch = strip + gap
    figure, axes = plt.subplots(figsize=(4.4, 1.75 + pitch * len(layers)), layout="constrained")
    ends = (epochs[0] - 0.5, epochs[-1] + 0.5)
    for at, (ops, values) in enumerate(layers.values()):
        extent = (*ends, at * pitch + strip, at * pitch)
        image = axes.imshow(values, cmap="BuPu", vmin=0, vmax=1, aspect="auto", extent=extent, interpolation="none")
        axes.add_patch(Rectangle((ends[0], at * pitch), ends[1] - ends[0], strip, fill=False, ec="0.6", lw=0.5))
        best = int(values[:, -1].argmax())
        likely = [index for index in np.argsort(-values[:, -1], kind="stable")[:3] if values[index, -1] >= 0.2 or index == best]
        axes.annotate(
            ", ".join(f"{_short(ops[index])} {values[index, -1]:.2f}" for index in likely),
            *((1, at * pitch + strip * (best + 0.5) / len(ops)), (4, 0), ("axes fraction", "data"), "offset points"),
            **{"va": "center", "fontsize": 7},
        )
    axes.set(xlim=ends, ylim=(len(layers) * pitch - gap, 0), xlabel="epoch", ylabel="layer")
    axes.set_yticks([at * pitch + strip / 2 for at in range(len(layers))], list(layers))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="probability", location="bottom", aspect=40, pad=0.01)
    figure.supxlabel(_key(layers), fontsize=7)
    put_title(figure, title)
    save(figure, path, _theta_caption(epochs, layers))


def _probabilities(rows: Sequence[dict]) -> tuple[list[int], dict[str, tuple[list[str], np.ndarray]]]:
    """The epochs; by layer its candidates, and probabilities [candidates, epochs]."""
    epochs = sorted({row["epoch"] for row in rows})
    values = {(row["layer"], row["op"], row["epoch"]): row["probability"] for row in rows}
    candidates: dict[str, list[str]] = {}
    for layer, op in dict.fromkeys((row["layer"], row["op"]) for row in rows):
        candidates.setdefault(layer, []).append(op)
    if not rows:
        raise InputError("there are no probabilities")
    try:
        return epochs, {
            layer: (ops, np.array([[values[layer, op, epoch] for epoch in epochs] for op in ops]))
            for layer, ops in candidates.items()
        }
    except KeyError as missing:
        layer, op, epoch = missing.args[0]
        raise InputError(f"epoch {epoch} has no row for layer {layer}, {op}") from None


def _key(layers: dict) -> str:
    """The order of the candidates, where all layers have the same."""
    orders = {tuple(ops) for ops, _ in layers.values()}
    names = ", ".join(map(_short, next(iter(orders)))) if len(orders) == 1 else "the candidates in the space's order"
    return textwrap.fill(f"lines of a strip, from above: {names}", 72)


def _theta_caption(epochs: Sequence[int], layers: dict) -> str:
    last = {layer: sorted(zip(values[:, -1], ops, strict=True), reverse=True) for layer, (ops, values) in layers.items()}
    decided = sum(pairs[0][0] > 0.5 for pairs in last.values())
    text = f"After epoch {epochs[-1]}, one operator has more than half of the probability in {decided} of {_many(layers)}."
    choices = {layer: pairs for layer, pairs in last.items() if len(pairs) > 1}
    if not choices:
        return text
    layer, ((first, one), (second, other), *_) = min(choices.items(), key=lambda item: item[1][0][0] - item[1][1][0])
    return f"{text} Layer {layer} is the least decided: {_short(one)} {first:.2f} against {_short(other)} {second:.2f}."


def _many(layers) -> str:
    return counted(len(layers), "layer")


def history(rows: Sequence[dict], title: str, path: Path, budget_us: float | None = None) -> None:
    """Latency and accuracy over the epochs, phase by phase; a budget is a dashed line.

    `rows` have `epoch`, `phase`, `latency_us`, `top1`, of which the last two may be None. Raises InputError if there are none.
    """
    if not rows:
        raise InputError("there are no epochs")
    styles = {
        "weights": {"label": "Gumbel samples, weight phase", "color": "0.6", "ls": "-", "lw": 1.6},
        "theta": {"label": "Gumbel samples, theta phase", "color": "#3a78b5", "ls": "--", "lw": 1.2, "marker": "^", "ms": 3.5},
        "argmax": {"label": "most probable architecture", "color": "0.05", "ls": "-", "lw": 1.2, "marker": "o", "ms": 3.5},
        "largest": {"label": "largest architecture", "color": "0.05", "ls": "-", "lw": 1.2, "marker": "o", "ms": 3.5},
        "random": {"label": "random architectures", "color": "#3a78b5", "ls": "--", "lw": 1.2, "marker": "^", "ms": 3.5},
    }
    panels = {"latency_us": (1e-3, "predicted latency, ms"), "top1": (100, "top-1 accuracy, %")}
    if all(row["latency_us"] is None for row in rows):  # of a one-shot training
        del panels["latency_us"]
        styles["weights"]["label"] = "largest architecture, in training"
    figure, axes = plt.subplots(
        len(panels), sharex=True, squeeze=False, figsize=(4.4, 0.3 + 2 * len(panels)), layout="constrained"
    )
    first = min((row["epoch"] for row in rows if row["phase"] == "theta"), default=None)
    start, end = (pick(row["epoch"] for row in rows) for pick in (min, max))
    for axis, (column, (factor, label)) in zip(axes.flat, panels.items(), strict=True):
        for phase, style in styles.items():
            points = [(row["epoch"], factor * row[column]) for row in rows if row["phase"] == phase and row[column] is not None]
            if points:
                axis.plot(*zip(*points, strict=True), **style, markevery=max(1, len(points) // 12))
        if column == "latency_us" and budget_us is not None:
            axis.axhline(budget_us / 1000, color="0.2", ls=(0, (5, 3)), lw=0.9, label=f"budget, {milliseconds(budget_us)}")
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92", lw=0.6)
        axis.set_axisbelow(True)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if first is not None and first > start:
            axis.axvspan(start - 0.5, first - 0.5, color="0.95", lw=0, zorder=0, label="warm-up: weights only")
        axis.set_xlim(start - 0.5, end + 0.5)
    axis.set_xlabel("epoch")
    legend: dict = {}
    for axis in axes.flat[::-1]:
        handles, labels = axis.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=2, frameon=False, fontsize=7, handlelength=3)
    put_title(figure, title)
    save(figure, path, _history_caption(rows, budget_us))


def _history_caption(rows: Sequence[dict], budget_us: float | None) -> str:
    expected = [row["latency_us"] for row in rows if row["phase"] in ("weights", "theta") and row["latency_us"] is not None]
    chosen = [row for row in rows if row["phase"] == "argmax"]
    largest, others = ([row["top1"] for row in rows if row["phase"] == phase] for phase in ("largest", "random"))
    if largest and others and None not in (largest[-1], others[-1]):
        return (
            f"With the supernet's weights the largest architecture ends at an accuracy of {largest[-1]:.1%} on the architecture "
            f"split, random ones at {others[-1]:.1%}."
        )
    sentences = []
    if expected:
        start, end = map(milliseconds, (expected[0], expected[-1]))
        sentences.append("the expected latency " + (f"stays at {start}" if start == end else f"goes from {start} to {end}"))
    if chosen and chosen[-1]["latency_us"] is not None:
        latency_us = chosen[-1]["latency_us"]
        text = f"the most probable architecture ends at {milliseconds(latency_us)}"
        if budget_us is not None:
            text += f", {abs(latency_us / budget_us - 1):.1%} {'above' if latency_us > budget_us else 'below'} the budget"
        if chosen[-1]["top1"] is not None:
            text += f"; its one-shot accuracy on the architecture split is {chosen[-1]['top1']:.1%}"
        sentences.append(text)
    return _capital("; ".join(sentences) + ". Latencies are predicted.") if sentences else ""


def _short(op: str) -> str:
    return op.removeprefix("ir_")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
