"""The headline: do the searches beat what costs nothing? Each budget against each baseline, in a table and in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

from fbnet.architecture.rules import RULES
from fbnet.report.evaluation import Comparison, Evaluation
from fbnet.report.words import NBSP

VERDICTS = {"better": "▲ better", "equal": "○ not better", "worse": "▼ worse", "unknown": "? not known"}


@dataclass(frozen=True)
class Column:
    """A baseline: its heading, and what it is."""

    against: str
    heading: str
    what: str


@dataclass(frozen=True)
class Row:
    """What a method derived within a budget, and by baseline what it is compared with; `first` is any of these."""

    first: Comparison
    cells: dict[str, Comparison]
    notes: dict[str, str]

    @property
    def derived(self) -> int:
        """How many."""
        return len(self.first.networks.split())


@dataclass(frozen=True)
class Headline:
    """The table, whether its rows are of several methods, what it says in a sentence for each, and how to read it."""

    columns: list[Column]
    rows: list[Row]
    several_methods: bool
    sentence: str
    note: str


def headline(evaluation: Evaluation) -> Headline | None:
    """What the comparisons come to; None if there are none."""
    cells: dict[tuple[str, str], dict[str, Comparison]] = {}
    for one in evaluation.comparisons:
        cells.setdefault((one.baseline, one.method), {})[one.against] = one
    if not cells:
        return None
    searches = {network.network: network for network in evaluation.networks if network.kind == "random_search"}
    same_cost = "random search at the same cost"
    if any(network.drawn > network.pool for network in searches.values()):
        same_cost = "random search"
    every = [
        *(Column(name, rule.words.removeprefix("the "), "a rule, costs nothing") for name, rule in RULES.items()),
        *(Column("random_search", same_cost, "best by validation"), Column("random", "random architectures", "their mean")),
    ]
    rows = []
    for own in cells.values():
        notes = {against: f"n{NBSP}={NBSP}{one.others}" for against, one in own.items() if against == "random"}
        notes |= {against: searches[one.other].best_of for against, one in own.items() if one.other in searches}
        rows.append(Row(next(iter(own.values())), own, notes))
    columns = [column for column in every if any(column.against in own for own in cells.values())]
    methods = list(dict.fromkeys(row.first.method for row in rows))
    several = len(methods) > 1
    sentences = [
        _sentence([row for row in rows if row.first.method == method], same_cost, f" by {method}" if several else "")
        for method in methods
    ]
    return Headline(columns, rows, several, " ".join(sentences), _note(evaluation.comparisons))


def _sentence(rows: Sequence[Row], same_cost: str, by: str) -> str:
    groups = {"every rule that costs nothing": [*RULES], same_cost: ["random_search"], "random architectures": ["random"]}
    parts = []
    for text, against in groups.items():
        verdicts = [own for row in rows if (own := [row.cells[name].verdict for name in against if name in row.cells])]
        if not verdicts:
            continue
        better = sum(all(verdict == "better" for verdict in own) for own in verdicts)
        worse = sum("worse" in own for own in verdicts)
        budgets = "" if parts else f" latency budget{'' if len(verdicts) == 1 else 's'}"
        parts.append(f"than {text} within {better} of {len(verdicts)}{budgets}{f' (worse within {worse})' if worse else ''}")
    several = sum(row.derived for row in rows) > 1
    who = f"The {'architectures' if several else 'architecture'} derived{by}"
    return f"{who} {'are' if several else 'is'} better {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}."


def _note(comparisons: Sequence[Comparison]) -> str:
    equal = {one.at_equal_latency for one in comparisons}
    at = " at equal latency" if True in equal else ""
    star = "; with a *, latencies are not made equal" if len(equal) > 1 else ""
    return (
        f"Differences of test accuracy, derived less other, in percentage points{at}, ± half of the 95 % confidence "
        f"interval{star}. Not better: 0 lies within the interval. Below them, the other's own accuracy."
    )
