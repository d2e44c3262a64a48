"""Pictures of an evaluation, to be read in grey, with captions that the data have written."""

import itertools
import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from fbnet.architecture.rules import RULES
from fbnet.evaluation.significance import Uncertainty, welch
from fbnet.evaluation.words import counted
from fbnet.report.diagram import stage_diagram
from fbnet.report.networks import Network, accuracy, front, latency, numbers, trained
from fbnet.report.picture import Picture, read_picture
from fbnet.report.style import plt, put_title, save
from fbnet.report.words import NBSP, milliseconds
from fbnet.space import SearchSpace


def accuracy_latency(networks: Sequence[Network], title: str, path: Path) -> None:
    """Test accuracy against latency, a panel a target: Pareto front, budgets, derived networks and their baselines."""
    targets = list(dict.fromkeys(network.target for network in networks))
    figure, panels = plt.subplots(len(targets), squeeze=False, figsize=(4.9, 0.9 + 3.5 * len(targets)), layout="constrained")
    labels = {network.network: network.network for network in networks} | numbers(networks)
    shown = [
        (axes, [one for one in networks if one.target == target]) for axes, target in zip(panels[:, 0], targets, strict=True)
    ]
    for axes, own in shown:
        _panel(axes, own, _words(networks), f" on {own[0].target}" if len(targets) > 1 else "")
    handles = {}
    for axes in panels[:, 0]:
        artists, words = axes.get_legend_handles_labels()
        handles |= dict(zip(words, artists, strict=True))
    handles = dict(sorted(handles.items(), key=lambda item: isinstance(item[1], Line2D)))  # points before lines
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    key = ", ".join(f"{number}{NBSP}{name}" for name, number in numbers(networks).items())
    put_title(figure, f"{title}; {key}" if key else title)
    figure.canvas.draw()  # for the places of the points in pixels
    for axes, own in shown:
        _label(axes, own, labels)
    save(figure, path, _scatter_caption(networks, targets))


_RULE_LOOKS = [("P", "#9c2f5e"), ("X", "#2f7d4f"), ("v", "#7a5c00"), ("h", "#4b3f8f")]
_LOOKS = {  # by rule, or else by kind
    "found": {"marker": "o", "ms": 6.5, "color": "#0b3c6f", "zorder": 5},
    **{
        rule: {"marker": marker, "ms": 6.5, "color": color, "zorder": 4}
        for rule, (marker, color) in zip(RULES, itertools.cycle(_RULE_LOOKS), strict=False)
    },
    "random_search": {"marker": "*", "ms": 11, "color": "0.15", "zorder": 4},
    "random": {"marker": "^", "ms": 5.5, "color": "0.58", "zorder": 3},
    "ranked": {"marker": "^", "ms": 4, "color": "0.78", "zorder": 2.5},
    "published": {"marker": "s", "ms": 5.5, "color": "#c8702a", "zorder": 4},
}


def _look(network: Network) -> tuple[str, bool]:
    """What decides how a network is drawn: its rule or kind, and whether it was measured."""
    return network.rule if network.kind == "rule" else network.kind, network.measured_us is not None


def _words(networks: Sequence[Network]) -> dict[tuple[str, bool], str]:
    """What the legend says of networks that are drawn alike."""
    counts = Counter(map(_look, networks))
    what = {_look(network): network.what for network in networks}
    return {look: f"{what[look]}{'' if look[1] else ', predicted latency'} (n = {count})" for look, count in counts.items()}


def _panel(axes, networks: Sequence[Network], words: Mapping[tuple[str, bool], str], where: str) -> None:
    for kind, style in _LOOKS.items():
        for measured in (True, False):
            own = [network for network in networks if _look(network) == (kind, measured)]
            if not own:
                continue
            filled = measured and kind != "random_search"
            sd = [100 * (network.top1_sd or 0) for network in own]
            axes.errorbar(
                *([network.latency_us / 1000 for network in own], [100 * network.top1 for network in own]),
                **{"yerr": sd if any(sd) else None, "fmt": "", "ls": "", "elinewidth": 0.9, "capsize": 2},
                **style | {"mec": "white" if filled else style["color"], "mew": 0.5 if filled else 1.2},
                **{} if filled else {"mfc": "white" if kind != "random_search" else "none"},  # what it chooses lies beneath
                label=words[kind, measured],
            )
    sets: dict[str, list[Network]] = {}
    for network in networks:
        if network.kind == "random":
            sets.setdefault(network.baseline, []).append(network)
    means = [
        [statistics.mean(values) for values in zip(*((n.latency_us / 1000, 100 * n.top1) for n in group), strict=True)]
        for group in sets.values()
        if len(group) > 1
    ]
    if means:
        axes.plot(*zip(*means, strict=True), "D", ms=6, mfc="white", mec="0.35", mew=1.2, zorder=4, label="mean of a random set")
    budgets = sorted({network.budget_us for network in networks if network.budget_us is not None})
    best = front(networks)
    x, y = [network.latency_us / 1000 for network in best], [100 * network.top1 for network in best]
    axes.margins(0.09, 0.1)
    every = [network.latency_us / 1000 for network in networks] + [budget_us / 1000 for budget_us in budgets]
    room = 0.06 * (max(every) - min(every)) or 0.1 * max(every)
    right = max(every) + room
    axes.set_xlim(min(every) - room, right)
    axes.step([*x, right], [*y, y[-1]], where="post", color="0.15", lw=0.9, zorder=2, label="Pareto front")
    axes.plot(x, y, "o", ms=11, mfc="none", mec="0.15", mew=0.9, zorder=6)
    for budget_us in budgets:
        first = budget_us == budgets[0]
        axes.axvline(budget_us / 1000, color="0.3", ls=":", lw=0.9, zorder=1, label="latency budget" if first else "")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.94", lw=0.6)
    axes.set_axisbelow(True)
    bars = "; bars: ± standard deviation" if any(network.top1_sd for network in networks) else ""
    axes.set(xlabel=f"latency{where}, ms ({_how_measured(networks)})", ylabel=f"test accuracy (top-1), %{bars}")


def _how_measured(networks: Sequence[Network]) -> str:
    measured = sum(network.measured_us is not None for network in networks)
    if measured == len(networks):
        return "measured and rescaled"
    return "measured and rescaled, or predicted where the legend says so" if measured else "predicted"


def _label(axes, networks: Sequence[Network], names: Mapping[str, str]) -> None:
    """Names beside the points of the derived architectures, where they cover least of other points and names."""
    place = axes.transData.transform
    points = [place((network.latency_us / 1000, 100 * network.top1)) for network in networks]
    scale = axes.figure.dpi / 72
    taken = [(x - 6 * scale, y - 6 * scale, x + 6 * scale, y + 6 * scale) for x, y in points]
    taken += [
        _between(place((network.latency_us / 1000, 100 * (network.top1 + side * (network.top1_sd or 0)))) for side in (-1, 1))
        for network in networks
    ]
    best = [place((network.latency_us / 1000, 100 * network.top1)) for network in front(networks)]
    for (x, y), (x_next, y_next) in itertools.pairwise([*best, (axes.bbox.x1, best[-1][1])]):
        taken += [_between([(x, y), (x_next, y)]), _between([(x_next, y), (x_next, y_next)])]
    inside = axes.get_window_extent().extents
    for network, (x, y) in zip(networks, points, strict=True):
        if network.kind != "found":
            continue
        text = str(names[network.network])
        wide, high = 4.1 * len(text) * scale, 8 * scale

        def cost(offset, x=x, y=y, wide=wide, high=high):
            box = _box(x + offset[0] * scale, y + offset[1] * scale, wide, high, offset)
            outside = sum(max(0, low - at) for low, at in zip(inside[:2], box[:2], strict=True))
            outside += sum(max(0, at - high) for high, at in zip(inside[2:], box[2:], strict=True))
            return sum(_overlap(box, other) for other in taken) + 100 * outside + math.hypot(*offset)

        offsets = [(dx, dy) for reach in (1, 1.8) for dx, dy in _AROUND * reach]
        dx, dy = min(offsets, key=cost)
        taken.append(_box(x + dx * scale, y + dy * scale, wide, high, (dx, dy)))
        axes.annotate(
            *(text, (network.latency_us / 1000, 100 * network.top1), (dx, dy)),
            **{"textcoords": "offset points", "fontsize": 7, "va": "center", "zorder": 7},
            **{"ha": "left" if dx > 2 else "right" if dx < -2 else "center"},
            arrowprops=_LEADER if math.hypot(dx, dy) > 13 else None,
        )


_LEADER = {"arrowstyle": "-", "lw": 0.4, "color": "0.4", "shrinkA": 0, "shrinkB": 6}  # from a name to its point
_AROUND = np.array([(8, 0), (-8, 0), (0, 11), (0, -11), (7, 9), (-7, 9), (7, -9), (-7, -9)])


def _between(points) -> tuple[float, float, float, float]:
    """The box around points, in pixels, as wide as a line at least."""
    xs, ys = zip(*points, strict=True)
    return min(xs) - 1, min(ys) - 1, max(xs) + 1, max(ys) + 1


def _box(x: float, y: float, wide: float, high: float, offset) -> tuple[float, float, float, float]:
    left = x if offset[0] > 2 else x - wide if offset[0] < -2 else x - wide / 2
    return left, y - high / 2, left + wide, y + high / 2


def _overlap(one, other) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _scatter_caption(networks: Sequence[Network], targets: Sequence[str]) -> str:
    real = trained(networks)
    fewest, most = (pick(network.trainings for network in real) for pick in (min, max))
    if most > 1:
        runs = counted(most, "training run") if fewest == most else f"{fewest} to {most} training runs"
        spread = f"means of {runs}, error bars ± one standard deviation"
    else:
        spread = "of one training run each, so that their spread is not known"
    fronts = [_front_sentence([network for network in networks if network.target == target]) for target in targets]
    if len(targets) > 1:
        fronts = [f"On {target}: {text}" for target, text in zip(targets, fronts, strict=True)]
    how = f"Latencies are {_how_measured(networks)}."
    if len(real) < len(networks):
        how += " A star is what a random search can expect to find, ± the standard deviation between such searches."
    return " ".join([f"Test accuracies of {counted(len(real), 'network')}, {spread}.", how, *fronts])


def _front_sentence(networks: Sequence[Network]) -> str:
    best = front(networks)
    first, last = (
        f"{network.network} ({milliseconds(network.latency_us)}, {accuracy(network)})" for network in (best[0], best[-1])
    )
    if len(best) == 1:
        return f"{first} is the fastest and the most accurate." if len(trained(networks)) > 1 else f"There is only {first}."
    found = sum(network.kind == "found" for network in best)
    are = "is" if found == 1 else "are"
    text = f"The Pareto front runs from {first} to {last}; {found} of its {len(best)} networks {are} derived"
    chance = sum(itertools.starmap(_not_significant, itertools.pairwise(best)))
    are = "is" if chance == 1 else "are"
    steps = f", and {chance} of its {counted(len(best) - 1, 'step')} in accuracy {are} not significant (95 % confidence)"
    return f"{text}{steps if chance else ''}."


def _not_significant(one: Network, other: Network) -> bool:
    """Whether Welch's test does not tell two accuracies apart, by the spread over training runs; not where that is not known."""
    if any(network.top1_sd is None or network.trainings < 2 for network in (one, other)):
        return False
    means = (Uncertainty(network.top1_sd**2 / network.trainings, network.trainings - 1) for network in (one, other))
    return not welch(other.top1 - one.top1, *means).significant


def side_by_side(networks: Sequence[Network], space: SearchSpace) -> Picture | None:
    """The derived architectures as stage diagrams, from fast to slow; None if there are fewer than two.

    Raises InputError for one that is not of the space.
    """
    derived = sorted((network for network in networks if network.kind == "found"), key=lambda network: network.latency_us)
    if len(derived) < 2:
        return None
    order, heads = numbers(networks), {}
    for network in derived:
        number = f"{order[network.network]} " if order else ""
        heads[f"{number}{network.network}\n{latency(network)}\n{accuracy(network)}"] = network.ops.split()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "architectures.svg")
        stage_diagram(heads, space, "The derived architectures, from fast to slow", path)
        return read_picture(path)
