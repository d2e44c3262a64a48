"""What searches have chosen for one budget after the other: accuracy inside the supernet against latency, before any training."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from fbnet.report.style import plt, put_title, save
from fbnet.report.words import milliseconds, percent

COLOURS = ("#0b3c6f", "#c8702a", "#2f7d4f", "#9c2f5e", "0.35")  # of methods, also told by their markers
MARKERS = ("o", "s", "^", "D", "v")


def front(rows: Sequence[dict], path: Path) -> None:
    """A panel a target, a curve a method; full points are measured, empty ones predicted, a line joins the two of a network.

    `rows` have `search`, `method`, `target`, `predicted_us`, `measured_us` (None where nothing is measured), `supernet_top1`.
    """
    targets, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("target", "method"))
    figure, panels = plt.subplots(len(targets), squeeze=False, figsize=(5.6, 0.8 + 3 * len(targets)), layout="constrained")
    for axes, target in zip(panels[:, 0], targets, strict=True):
        for method, colour, marker in zip(methods, itertools.cycle(COLOURS), itertools.cycle(MARKERS)):
            own = sorted((row for row in rows if (row["target"], row["method"]) == (target, method)), key=reached)
            if not own:
                continue
            top1 = [100 * row["supernet_top1"] for row in own]
            axes.plot([reached(row) / 1000 for row in own], top1, color=colour, lw=1.0, zorder=2)
            for row, accuracy in zip(own, top1, strict=True):
                predicted, style = row["predicted_us"] / 1000, {"color": colour, "marker": marker, "ms": 5}
                axes.plot([predicted, reached(row) / 1000], [accuracy] * 2, color=colour, lw=0.8, ls=":", zorder=1)
                axes.plot(predicted, accuracy, **style, mfc="white", zorder=3)
                if row["measured_us"]:
                    axes.plot(row["measured_us"] / 1000, accuracy, **style, zorder=4)
            axes.plot([], [], color=colour, marker=marker, ms=5, label=method)
        axes.set(xlabel=f"latency on {target}, ms (full: measured, empty: predicted)", ylabel="one-shot accuracy, %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.94", lw=0.6)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="lower right")
    put_title(figure, "What is chosen for one budget after the other, with the weights of the supernet")
    save(figure, path, _caption(rows, targets))


def reached(row: dict) -> float:
    """A network's latency in µs as far as it is known: measured, or else predicted."""
    return row["measured_us"] or row["predicted_us"]


def _caption(rows: Sequence[dict], targets: Sequence[str]) -> str:
    found = []
    for target in targets:
        own = sorted((row for row in rows if row["target"] == target), key=reached)
        first, *_, last = [f"{milliseconds(reached(row))} with {percent(row['supernet_top1'])}" for row in (own[0], own[-1])]
        found.append(f"On {target} from {first} ({own[0]['search']}) to {last} ({own[-1]['search']}), {len(own)} networks.")
    return " ".join(
        [*found, "Accuracies are those of the architecture split, with weights that no network has been trained with."]
    )
