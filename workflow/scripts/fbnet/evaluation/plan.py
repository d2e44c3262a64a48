"""What an evaluation compares: the derived architectures, and for each the baselines of its device and latency budget."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fbnet.errors import InputError
from fbnet.space import SearchSpace, fitting


@dataclass(frozen=True)
class NetworkSet:
    """Networks that are sampled and measured together: those of a search, or a set of baselines.

    `kind` is found (derived by a search), rule, random, ranked or published; `networks` are the names of those that are
    trained. `budget` is the latency budget as text, None where there is none; baselines then stay within what the first network
    of search `like` takes. `others` are further budgets, which baselines keep too. `baseline` is what the names of all
    baselines of this target and budget end with. Searches that differ in nothing but seed, target and budgets are of one
    `method`; what is found is chosen from a `supernet`. Ranked networks are spread over all `budgets` of their target.
    """

    kind: str
    target: str
    networks: tuple[str, ...]
    budget: str | None = None
    like: str | None = None
    baseline: str | None = None
    seed: int | None = None
    method: str | None = None
    supernet: str | None = None
    rule: str | None = None
    budgets: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)


def network_sets(config: dict, space: SearchSpace) -> dict[str, NetworkSet]:
    """All sets of a resolved configuration by name; those of baselines are named after their kind. Raises InputError."""
    evaluation, found, methods = config["evaluation"], {}, _methods(config["searches"])
    baselines: dict[str, NetworkSet] = {}
    for name, search in config["searches"].items():
        target, budget = search["target"], search["latency_budget"]
        others = {kind: str(amount) for kind, amount in search["budgets"].items()}
        baseline = "_".join([target, _slug(budget), *(f"{kind}_{_slug(amount)}" for kind, amount in others.items())])
        baseline = baseline if budget else f"like_{name}"
        origin = {"seed": search["seed"], "method": methods[name], "supernet": config["supernets"][name]}
        found[name] = NetworkSet("found", target, (name,), budget, None, baseline, **origin, others=others)
        within = {"budget": budget, "like": None if budget else name, "baseline": baseline, "others": others}
        for rule in evaluation["rules"]:
            rule_name = f"rule_{rule}_{baseline}"
            baselines[rule_name] = NetworkSet("rule", target, (rule_name,), **within, rule=rule)
        if evaluation["random"]:
            random = f"random_{baseline}"
            baselines[random] = NetworkSet("random", target, _numbered(random, evaluation["random"]), **within)
    for target in {entry.target: None for entry in found.values()}:
        # Random networks within a budget can be ranked as well; what lacks is spread over all budgets.
        random = sum(len(entry.networks) for entry in baselines.values() if (entry.kind, entry.target) == ("random", target))
        if (lacking := evaluation["ranked"] - random) > 0:
            ranked = f"ranked_{target}"
            of_target = [entry.budget for entry in found.values() if entry.target == target]
            budgets = () if None in of_target else tuple(dict.fromkeys(of_target))
            baselines[ranked] = NetworkSet("ranked", target, _numbered(ranked, lacking), budgets=budgets)
    return found | baselines | _published(evaluation["published"], space, {entry.target: None for entry in found.values()})


def _methods(searches: Mapping[str, Mapping]) -> dict[str, str]:
    """What the searches of one method are called together: what their names begin with, or the first one's name."""
    alike: dict[str, list[str]] = {}
    for name, search in searches.items():
        settings = {key: value for key, value in search.items() if key not in ("seed", "target", "latency_budget", "budgets")}
        alike.setdefault(json.dumps(settings, sort_keys=True), []).append(name)
    called: dict[str, str] = {}
    for names in alike.values():
        words = zip(*(name.split("_") for name in names), strict=False)
        shared = "_".join(column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, words))
        short = re.sub(r"(_\d+|_seed)+$", "", shared)
        taken = {*called.values(), *searches} - {*names}
        called |= dict.fromkeys(names, short if len(names) > 1 and short and short not in taken else names[0])
    return called


def _slug(budget: str | None) -> str:
    """A budget as part of a name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", budget or "").strip("_")


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{number}" for number in range(1, count + 1))


def _published(wanted: bool | list[str], space: SearchSpace, targets: Iterable[str]) -> dict[str, NetworkSet]:
    """For each target the published architectures that the space can express: all of them, or those of these names."""
    if not wanted:
        return {}
    fit = fitting(space)
    names = fit if wanted is True else wanted
    for name in names:
        if name not in fit:
            raise InputError(
                f"evaluation.published names {name!r}, but the published architectures that space {space.name} can express "
                f"are {', '.join(fit) or 'none'}"
            )
    networks = tuple(f"published_{name}" for name in names)
    return {f"published_{target}": NetworkSet("published", target, networks) for target in targets if networks}
