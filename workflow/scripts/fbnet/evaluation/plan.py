"""What an evaluation compares: the derived architectures, and for each the baselines of its device and latency budget."""

import re
from dataclasses import dataclass

from fbnet.errors import InputError
from fbnet.space import SearchSpace, fitting


@dataclass(frozen=True)
class NetworkSet:
    """Networks that are sampled and measured together: those of a search, or a set of baselines.

    `kind` is found (derived by a search), random or published; `networks` are the names of those that are trained. `budget` is
    the latency budget as text, None where there is none; random networks then stay within what the first network of search
    `like` takes.
    """

    kind: str
    target: str
    networks: tuple[str, ...]
    budget: str | None = None
    like: str | None = None
    baseline: str | None = None
    seed: int | None = None


def network_sets(config: dict, space: SearchSpace) -> dict[str, NetworkSet]:
    """All sets of a resolved configuration by name; baselines are named random_… and published_…. Raises InputError."""
    evaluation, sets = config["evaluation"], {}
    baselines: dict[str, NetworkSet] = {}
    for name, search in config["searches"].items():
        target, budget = search["target"], search["latency_budget"]
        baseline = None
        if evaluation["random"]:
            slug = re.sub(r"[^A-Za-z0-9]+", "_", budget).strip("_") if budget else ""
            baseline = f"random_{target}_{slug}" if budget else f"random_like_{name}"
            networks = tuple(f"{baseline}_{number}" for number in range(1, evaluation["random"] + 1))
            baselines[baseline] = NetworkSet("random", target, networks, budget, None if budget else name, baseline)
        sets[name] = NetworkSet("found", target, (name,), budget, None, baseline, search["seed"])
    if evaluation["published"]:
        fit = fitting(space)
        names = fit if evaluation["published"] is True else evaluation["published"]
        for name in names:
            if name not in fit:
                raise InputError(
                    f"evaluation.published names {name!r}, but the published architectures that space {space.name} can express "
                    f"are {', '.join(fit) or 'none'}"
                )
        networks = tuple(f"published_{name}" for name in names)
        for target in {entry.target: None for entry in sets.values()} if networks else ():
            baselines[f"published_{target}"] = NetworkSet("published", target, networks, baseline=f"published_{target}")
    return sets | baselines
