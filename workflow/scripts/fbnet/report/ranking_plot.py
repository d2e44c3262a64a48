"""The order inside the supernet: one-shot accuracy against accuracy after training, with a caption that the data have written."""

import math
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from fbnet.errors import InputError
from fbnet.evaluation.words import counted
from fbnet.report.evaluation import Evaluation, Order
from fbnet.report.networks import Network
from fbnet.report.picture import Picture, read_picture
from fbnet.report.style import plt, put_title, save

PANELS = 12  # searches, above which the picture shows the first


def ranking_plot(evaluation: Evaluation, one_shot: Mapping[str, Mapping[str, float]], classes: int) -> Picture | None:
    """A panel a search, a point for each random architecture that is ranked; None where no supernet is.

    `one_shot` has the accuracies with a search's weights by the names of architectures. Raises InputError if some are lacking.
    """
    orders = [order for order in evaluation.orders if order.by == "supernet"]
    if not orders:
        return None
    points = {order.search: _points(evaluation.networks, order, one_shot.get(order.search, {})) for order in orders}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ranking.svg")
        _plot(orders[:PANELS], points, 1 / classes, path, _caption(evaluation, orders))
        return read_picture(path)


def _points(networks: Sequence[Network], order: Order, one_shot: Mapping[str, float]) -> list[tuple[float, float]]:
    """One-shot and test accuracy, in per cent, of the random architectures of a search's target, each once."""
    own = [network for network in networks if network.kind in ("random", "ranked") and network.target == order.target]
    once = {network.ops: network for network in reversed(own)}  # of several that are the same, the first
    points = [(100 * one_shot[name], 100 * one.top1) for one in once.values() if (name := one.network) in one_shot]
    if len(points) != order.networks:
        raise InputError(
            f"the ranking of search {order.search} is over {order.networks} random architectures, but of {len(points)} both "
            f"one-shot accuracy and accuracy after training are given: make all tables of the evaluation again"
        )
    return points


def _plot(orders: Sequence[Order], points: Mapping[str, list], chance: float, path: Path, caption: str) -> None:
    columns = min(3, len(orders))
    rows = math.ceil(len(orders) / columns)
    side = {1: 3.4, 2: 2.3, 3: 1.5}[columns]  # inches
    titles = [[*textwrap.wrap(order.search, int(16 * side)), f"τ = {_tau(order)}"] for order in orders]
    height = rows * (side + 0.13 * max(map(len, titles))) + 1.0
    figure, panels = plt.subplots(
        *(rows, columns), sharex=True, sharey=True, squeeze=False, figsize=(4.9, height), layout="constrained"
    )
    inside = [x for order in orders for x, _ in points[order.search]]
    span = max(inside) - min(inside)
    near = min(inside) - span <= 100 * chance <= max(inside) + span  # else the line would take most of the width
    for axes, order, title in zip(panels.flat, orders, titles, strict=False):
        own = points[order.search]
        if near:
            axes.axvline(100 * chance, color="0.3", ls=":", lw=0.9, zorder=1, label=f"chance, {100 * chance:.3g} %")
        axes.plot(*zip(*own, strict=True), "o", ms=4, color="0.45", mec="white", mew=0.4, label="random architecture")
        most = max(x for x, _ in own)
        first = [point for point in own if point[0] == most]
        axes.plot(*zip(*first, strict=True), "o", ms=8, mfc="none", mec="0.05", mew=1, label="put first by the supernet")
        axes.set_title("\n".join(title), fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.94", lw=0.6)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    for axes in panels.flat[len(orders) :]:
        axes.axis("off")
    for axes in panels.flat[max(0, len(orders) - columns) : len(orders)]:
        axes.tick_params(labelbottom=True)  # also above a place that is empty
        axes.set_xlabel("one-shot top-1, %", fontsize=7)
    for axes in panels[:, 0]:
        axes.set_ylabel("test top-1, %", fontsize=7)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=7, handletextpad=0.4)
    put_title(figure, "One-shot accuracy, with inherited weights, and test accuracy after training; their Kendall's τ")
    save(figure, path, caption)


def _caption(evaluation: Evaluation, orders: Sequence[Order]) -> str:
    """For each target, how well its supernets order random architectures, and what that is held against."""
    sentences = [f"Shown are the first {PANELS} of {len(orders)} searches."] if len(orders) > PANELS else []
    targets = list(dict.fromkeys(order.target for order in orders))
    for target in targets:
        own = [order for order in orders if order.target == target]
        by = {order.by: order for order in evaluation.orders if order.target == target}
        known = sorted((order for order in own if order.tau is not None), key=lambda order: order.tau)
        where = f"On {target}, " if len(targets) > 1 else ""
        text = f"{where}Kendall's τ over {counted(own[0].networks, 'random architecture')} is "
        if not known:
            text += "not defined: all are equal"
        elif len(own) == 1:
            text += _tau(known[0])
        else:
            text += f"{_tau(known[0])} to {_tau(known[-1])} in {counted(len(known), 'supernet')}"
        beside = [
            f"{name} {_tau(by[key])}" for key, name in (("macs", "of MACs it is"), ("training", "the ceiling is")) if key in by
        ]
        beside.append(f"by chance it stays within ±{own[0].tau_by_chance:.2f} (95 %)")
        sentences.append(f"{text}; {', '.join(beside)}.")
    return " ".join(sentences)


def _tau(order: Order) -> str:
    return "–" if order.tau is None else f"{order.tau:+.2f}".replace("-", "−")
