"""Who takes part in a race: what theta and rules choose, random architectures, and what the first trainings speak for."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fbnet.architecture.budgets import latency_budget
from fbnet.architecture.program import Budget, best
from fbnet.architecture.rules import RULES
from fbnet.architecture.sampling import draw_blindly, log_probs, rule_values
from fbnet.errors import InputError
from fbnet.latency import LatencyTable
from fbnet.space import SearchSpace

Ops = tuple[str, ...]
EXPECTED = {"theta": 1.0} | {name: rule.expected for name, rule in RULES.items()}  # shares in which scores foretell accuracy
LEAST_SLOPE = 0.25  # correlation of accuracy with these that is expected against all appearances: few trainings are noise


def race_seed(search_seed: int) -> int:
    """The seed of what a race leaves to chance: another for each seed of a search, and none of the evaluation's random ones."""
    return 1000 * (1 + search_seed)


class Scores:
    """What theta and rules give each candidate of each layer, and so an architecture in sum.

    Each is scaled so that its sum has a standard deviation of 1 among random networks, and a mean of 0.
    """

    def __init__(self, space: SearchSpace, theta, rules: Sequence[str]):
        self.space = space
        self.rows = {"theta": log_probs(theta)} | {rule: rule_values(space, rule) for rule in rules}
        for name, rows in self.rows.items():
            scale = math.sqrt(sum(row.var() for row in rows)) or 1.0
            self.rows[name] = [(row - row.mean()) / scale for row in rows]

    def of(self, ops: Ops) -> list[float]:
        """The sums of an architecture, one for each score."""
        numbers = self.space.numbers(ops)
        return [sum(float(row[n]) for row, n in zip(rows, numbers, strict=True)) for rows in self.rows.values()]

    def best(self, shares: Sequence[float], budgets: Sequence[Budget], besides: Mapping[Ops, str], count: int = 1) -> list[Ops]:
        """The best within budgets by the sum of the scores in these shares, exactly, and none of those `besides`."""
        mixed = [
            sum(share * row for share, row in zip(shares, rows, strict=True)) for rows in zip(*self.rows.values(), strict=True)
        ]
        new = (ops for pick in best(self.space, mixed, budgets) if (ops := self.space.ops(pick)) not in besides)
        return list(itertools.islice(new, count))


def entrants(
    table: LatencyTable, theta, count: int, rules: Sequence[str], total: int, budgets: Sequence[Budget] = (), seed: int = 0
) -> dict[Ops, str]:
    """The `total` architectures within budgets that a race begins with, and by what each was chosen; no two are alike.

    That is the `count` most probable ones by theta, what each rule chooses, what each two of these choose together, by the sum of
    their scores, and for the rest random ones. Raises InputError if there are too few within the budgets.
    """
    scores = Scores(table.space, theta, rules)
    names = list(scores.rows)
    chosen: dict[Ops, str] = {}
    for members in [*itertools.combinations(names, 1), *itertools.combinations(names, 2)]:
        shares = [name in members for name in names]
        found = scores.best(shares, budgets, chosen, count if members == ("theta",) else 1)
        chosen |= dict.fromkeys(found, " + ".join(members))
    chosen = dict(itertools.islice(chosen.items(), total))
    within = budgets or [latency_budget(table, 2 * table.most_us)]  # what no architecture takes by far
    at_random = draw_blindly(table.space, total, within, seed, "race.entrants") if len(chosen) < total else []
    others = (ops for ops in at_random if ops not in chosen)
    return chosen | dict.fromkeys(itertools.islice(others, total - len(chosen)), "a random draw")


def learned(
    space: SearchSpace,
    theta,
    rules: Sequence[str],
    trained: Mapping[Ops, float],
    count: int,
    budgets: Sequence[Budget] = (),
    seed: int = 0,
) -> dict[Ops, str]:
    """More architectures within budgets, by how far theta and the rules have foretold the accuracies of `trained` ones.

    A Bayesian linear regression of accuracy on the scores says in which shares they count, and how surely: what is expected
    before anything is trained (EXPECTED), and how far accuracies speak against it. The first is the best by these shares; each
    other one by shares drawn from what the regression leaves possible (Thompson sampling, 1933). Raises InputError if there are
    too few within the budgets.
    """
    from sklearn.linear_model import BayesianRidge  # here: it takes a second to import, which most jobs would spend for nothing

    scores = Scores(space, theta, rules)
    sums, top1 = np.array([scores.of(ops) for ops in trained]), np.array([100 * value for value in trained.values()])
    expected = np.array([EXPECTED[name] for name in scores.rows])
    together = sums @ expected
    least = LEAST_SLOPE * (top1.std() or 1.0) / (together.std() or 1.0)
    prior = expected * max(np.polyfit(together, top1, 1)[0] if together.std() else 0.0, least)
    fit = BayesianRidge().fit(sums, top1 - sums @ prior)
    likeliest = prior + fit.coef_
    drawn = np.random.default_rng(seed).multivariate_normal(likeliest, fit.sigma_, max(count - 1, 0))
    known = dict.fromkeys(trained, "")
    for shares in [likeliest, *drawn][:count]:
        # What should speak for a network may be found to say nothing, but not the contrary.
        shares = np.where(expected > 0, shares.clip(0), shares)
        parts = (shares if shares.any() else expected) / (np.abs(shares).sum() or expected.sum())
        said = " ".join(f"{share:+.2f} {name}" for share, name in zip(parts, scores.rows, strict=True))
        known |= dict.fromkeys(scores.best(list(parts), budgets, known), f"learned shares {said}")
    found = {ops: by for ops, by in known.items() if by}
    if len(found) < count:
        raise InputError(
            f"a race wants {len(trained)} + {count} architectures, but only {len(known)} keep {' and '.join(map(str, budgets))}: "
            f"lower race.learned or race.entrants, or allow more"
        )
    return found
