"""Searches that the configuration writes in short: lists of values, fronts of budgets, and what they share."""

import itertools
import json
import re

from fbnet.architecture import budget
from fbnet.errors import InputError
from fbnet.settings import ONE_SHOT_KEYS, of_method

TARGET = "cpu"  # of a search that names none


def swept(config):
    """A copy in which no search has a list: it is a search for each combination of values, named after them.

    And by search a name without the values that a one-shot training does not see.
    """
    if not isinstance(config, dict) or not all(isinstance(config.get(key) or {}, dict) for key in ("search", "searches")):
        return config, {}  # wrong, and told so by the schema
    shared = config.get("search") or {}
    swept: dict[str, dict] = {}
    short: dict[str, str] = {}
    for name, own in (config.get("searches", {"fbnet": {}}) or {}).items():
        own = own or {}
        if not isinstance(own, dict):
            swept[name] = own
            continue
        whole = merged(shared, own)
        if front := whole.get("front"):
            own = merged(own, _points(str(name), front, whole.get("target", TARGET)))
            whole = merged(shared, own)
        axes = dict(_lists({key: value for key, value in whole.items() if key != "front"}))
        for keys, values in axes.items():
            if not values or any(isinstance(value, list | dict) for value in values):
                raise InputError(f"searches.{name}.{'.'.join(keys)} is {values!r}, but a list must hold one value or more")
        for values in itertools.product(*axes.values()):
            parts = {keys: _slug(keys[-1], value) for keys, value in zip(axes, values, strict=True)}
            full = "_".join([str(name), *parts.values()])
            if full in swept:
                raise InputError(f"two searches would have the name {full}: give {name} values that differ in letters or digits")
            swept[full] = own
            short[full] = "_".join([str(name), *(part for (key, *_), part in parts.items() if key in ONE_SHOT_KEYS)])
            for keys, value in zip(axes, values, strict=True):
                swept[full] = _set(swept[full], keys, value)
    shared = {key: value for key, value in shared.items() if key != "front"}
    for keys, values in _lists(shared):
        if values:  # of none the schema tells
            shared = _set(shared, keys, values[0])
    return config | {"searches": swept} | ({"search": shared} if "search" in config else {}), short


def _points(name: str, front: dict, target) -> dict:
    """The settings that make a search one for each point of its front: a list of values of one budget."""
    where = f"searches.{name}.front"
    limited = [key for key in front if key != "points"] if isinstance(front, dict) else []
    if len(limited) != 1 or not isinstance(front[limited[0]], list) or len(front[limited[0]]) != 2:
        raise InputError(
            f"{where} is {front!r}, but must be one budget from least to most, as in {{cpu: [4ms, 12ms], points: 8}}"
        )
    [kind] = limited
    if isinstance(target, list) and kind in target:
        raise InputError(f"{where} is about {kind}, but target is a list: give each target a search of its own")
    try:
        values = budget.spaced(kind, front[kind], front.get("points", 8))
    except InputError as error:
        raise InputError(f"{where}.{error}") from None
    return {"front": None} | (
        {"latency_budget": values} if kind == target and kind not in budget.UNITS else {"budgets": {kind: values}}
    )


def supernets(searches: dict, short_names: dict[str, str]) -> dict[str, str]:
    """From which supernet each search chooses, by name: of FBNet its own; one-shot searches that agree in training share one."""
    supernets = {name: name for name, search in searches.items() if search["method"] == "fbnet"}
    trained: dict[str, str] = {}
    for name, search in searches.items():
        if name not in supernets:
            training = json.dumps(of_method(search), sort_keys=True)
            if training not in trained:
                is_free = short_names[name] not in {*supernets.values()}
                trained[training] = short_names[name] if is_free else name
            supernets[name] = trained[training]
    return {name: supernets[name] for name in searches}


def _lists(settings: dict, above: tuple = ()):
    for key, value in settings.items():
        if isinstance(value, list):
            yield (*above, str(key)), value
        elif isinstance(value, dict):
            yield from _lists(value, (*above, str(key)))


def _slug(key: str, value) -> str:
    """The part of a name that tells a value: text stands for itself, a number needs its key."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", str(value)).strip("_")
    return text if re.search("[A-Za-z]", text) and isinstance(value, str) else f"{key}_{text}"


def _set(settings: dict, keys: tuple, value) -> dict:
    first, *rest = keys
    return settings | {first: _set(settings.get(first) or {}, tuple(rest), value) if rest else value}


def merged(base: dict, over: dict) -> dict:
    """Settings laid over others, mapping by mapping."""
    found = dict(base)
    for key, value in over.items():
        found[key] = merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return found
