"""Check a configuration and fill in its defaults, before any job starts."""

import contextlib
import difflib
import json
import math
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from fbnet.architecture import budget
from fbnet.data import TRAINING_IMAGES, prepared, refusal, survey
from fbnet.errors import InputError
from fbnet.latency import Target, words
from fbnet.settings import TrainSettings, of_method, settings_of
from fbnet.space import SearchSpace, read_space
from fbnet.sweep import merged, supernets, swept

LEAST_TO_LEARN = 5  # entrants of a race whose accuracies may tell anything about theta and the rules


def resolve(config: dict, schema: dict, look: bool = False) -> tuple[dict, SearchSpace]:
    """The whole configuration, defaults filled in and `searches` complete, and its search space.

    Each search becomes the settings of `search` with its own laid over; one that gives a list for a key becomes a search for
    each of its values; `supernets` says which supernet it chooses from. `look`: an image folder that is not prepared yet is
    looked through. Raises InputError, in one sentence that names key, value and what is allowed.
    """
    config, short_names = swept(config)
    config = _typed(config, schema, schema["$defs"])
    _check_values(config, schema)
    definitions = schema["$defs"]
    config = _with_defaults(config, schema, definitions)
    config["search"] = _with_defaults(config["search"] or {}, definitions["search"], definitions)
    config["searches"] = {name: merged(config["search"], own or {}) for name, own in config["searches"].items()}
    config["supernets"] = supernets(config["searches"], short_names)
    config["latency"] = {
        name: own if own and "table" in own else _with_defaults(own or {}, definitions["target"], definitions)
        for name, own in config["latency"].items()
    }
    config = _at_home(config)
    _check_dataset(config["dataset"])
    space = read_space(config["space"])
    if config["dataset"]["name"] == "cifar10" and space.resolution != 32:
        raise InputError(
            f"space is {config['space']!r}, which takes {space.resolution}×{space.resolution} images, but cifar10 has "
            f"32×32: choose a space with resolution 32"
        )
    for name, target in config["latency"].items():
        _check_target(name, target)
    for name, search in config["searches"].items():
        _check_search(name, search, config)
        try:
            space.check_method(search["method"])
            _check_budgets(search, config["latency"], space)
        except InputError as error:
            raise InputError(f"searches.{name}: {error}") from None
    _check_race(config)
    TrainSettings.of(config["train"] | {"seed": 0})
    _check_baselines(config)
    _check_teacher(config)
    _check_images(config, look)
    return config, space


def check_yaml(path: Path) -> None:
    """Raise InputError if a mapping of a YAML file has a key twice, where the reader would silently keep the last."""
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            for key, value in node.value:
                if names.count(key.value) > 1:
                    raise InputError(
                        f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} is there {names.count(key.value)} "
                        f"times; every name must be unique"
                    )
                nodes.append(value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _check_dataset(dataset: dict) -> None:
    for key, exists, what in (("archive", Path.is_file, "file"), ("folder", Path.is_dir, "folder")):
        if dataset[key] is not None and not exists(Path(dataset[key])):
            raise InputError(f"dataset.{key} is {dataset[key]!r}, but there is no such {what}")
    if dataset["archive"] and dataset["folder"]:
        raise InputError("dataset.archive and dataset.folder are both set, but only one can be the source: set the other to null")
    if dataset["name"] == "image_folder" and not dataset["folder"]:
        raise InputError(
            "dataset.folder is not set, but dataset.name 'image_folder' needs it: name the folder with train/ and test/"
        )


def _check_target(name: str, target: dict) -> None:
    if "table" not in target:
        if "validation" in target:
            raise InputError(
                f"latency.{name}.validation is for a table from elsewhere, but {name} is measured here: leave it out"
            )
        Target(**{key: value for key, value in target.items() if key not in ("precision", "runs", "resources")}).check(
            f"latency.{name}"
        )
    else:
        others = ", ".join(key for key in target if key not in ("table", "validation", "batch", "dtype"))
        if others:
            raise InputError(
                f"latency.{name} names a table and also {others}: a table is used as it is, leave these out; "
                f"if they stand in config.yaml, which --config adds to, give the table a target of its own"
            )
        for key in ("table", "validation"):
            if key in target and not Path(target[key]).is_file():
                raise InputError(f"latency.{name}.{key} is {target[key]!r}, but there is no such file")


def _check_search(name: str, search: dict, config: dict) -> None:
    where = f"searches.{name}"
    if search["target"] not in config["latency"]:
        raise InputError(
            f"{where}: target is {search['target']!r}, but must be a name under latency: {', '.join(config['latency'])}"
        )
    by_theta = search["method"] == "fbnet"
    if by_theta and search["warmup_epochs"] >= search["epochs"]:
        raise InputError(
            f"{where}: warmup_epochs is {search['warmup_epochs']}, but must be less than epochs ({search['epochs']}), "
            f"or theta is never trained"
        )
    if by_theta and search["loss"]["form"] == "target" and search["loss"]["target_us"] is None and not search["latency_budget"]:
        raise InputError(
            f"{where}: neither loss.target_us nor latency_budget is set, but loss.form 'target' needs one: give a latency"
        )
    try:
        settings_of(of_method(search))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check_budgets(search: dict, targets: dict, space: SearchSpace) -> None:
    if search["latency_budget"]:
        budget.read(str(search["latency_budget"]), space)
    for name, amount in search["budgets"].items():
        if name in budget.UNITS:
            budget.read_amount(name, str(amount))
        elif name == search["target"]:
            raise InputError(f"budgets.{name} is the latency on its own target: set latency_budget to {amount!r} in its place")
        elif name in targets:
            budget.read(str(amount), space, f"budgets.{name}")
        else:
            known = ", ".join([*budget.UNITS, *(target for target in targets if target != search["target"])])
            raise InputError(f"budgets has {name!r}, but may limit {known}")


def _check_race(config: dict) -> None:
    race = config["race"]
    if not race["epochs"]:
        return
    if race["entrants"] + race["learned"] < 2:
        raise InputError("race.epochs is set, but a race needs two architectures: raise race.entrants")
    if race["learned"] and race["entrants"] < LEAST_TO_LEARN:
        raise InputError(
            f"race.learned is {race['learned']}, but race.entrants {race['entrants']}: fewer than {LEAST_TO_LEARN} tell nothing: "
            f"raise race.entrants, or set race.learned to 0"
        )
    free = [name for name, search in config["searches"].items() if not search["latency_budget"] and not search["budgets"]]
    if race["rules"] and free:
        raise InputError(
            f"race.rules is {race['rules']}, but searches.{free[0]} has no latency_budget, without which a rule chooses the "
            f"largest network of all: give a latency_budget, or set race.rules to []"
        )
    for key, value in (("method", "argmax"), ("judged", 1)):
        if config["sample"][key] != value:
            raise InputError(
                f"sample.{key} is {config['sample'][key]!r}, but a race (race.epochs) takes the most probable architectures and "
                f"trains them all: set it to {value}, or race.epochs to []"
            )


def _check_baselines(config: dict) -> None:
    train, evaluation = config["train"], config["evaluation"]
    baselines = {"random": 0, "ranked": 0, "rules": [], "published": False}
    others = [key for key in baselines if evaluation[key]]
    for key, without, what in (("start", "scratch", "to start from"), ("teacher", 0, "to learn from")):
        if others and train[key] != without:
            raise InputError(
                f"train.{key} is {train[key]!r}, but baselines have no supernet {what}, and a comparison needs one recipe for "
                f"all: set {', '.join(f'evaluation.{key} to {json.dumps(baselines[key])}' for key in others)}, or train.{key} "
                f"to {without}"
            )


def _check_teacher(config: dict) -> None:
    teacher = config["train"]["teacher"]
    others = [name for name, search in config["searches"].items() if search["method"] != "one_shot"]
    if teacher and others:
        raise InputError(
            f"train.teacher is {teacher}, but the largest network of searches.{others[0]} has not learned the labels, as it does "
            f"by method one_shot: set that, or train.teacher to 0"
        )


def _check_images(config: dict, look: bool) -> None:
    """Raise InputError where an image folder cannot be used, or batches are larger than what the images allow; with all of it."""
    dataset = config["dataset"]
    wrong, images = [], TRAINING_IMAGES.get(dataset["name"])
    if dataset["name"] == "image_folder":
        wrong, images = _look_at_folder(Path(dataset["folder"]), Path(config["results"]) / "data/image_folder", look)
    if images:
        wrong += dict.fromkeys(_too_few(images, config))
    if wrong:
        raise InputError("; ".join(wrong))


def _look_at_folder(folder: Path, prepared_in: Path, look: bool) -> tuple[list[str], int | None]:
    """What is wrong with an image folder, and how many training images it has, as far as that is known."""
    if ready := prepared(prepared_in, {"folder": str(folder)}):
        return [], ready["train"]
    if not look:
        return [], None
    found = survey(folder)
    return [refusal(folder, found.wrong)] if found.wrong else [], len(found.files["train"])


def _too_few(images: int, config: dict) -> Iterator[str]:
    """Which batches are larger than what so many training images allow, in sentences."""
    for name, search in config["searches"].items():
        share = search["weight_share"]
        smaller = min(round(images * share), images - round(images * share))
        if search["batch_size"] > smaller:
            yield (
                f"searches.{name}: batch_size is {search['batch_size']}, but must be at most {smaller}: weight_share {share} "
                f"leaves that many of the {images} training images to one of the two splits"
            )
    train = config["train"]
    left = round(images * (1 - train["validation_share"]))
    if train["batch_size"] > left:
        yield (
            f"train.batch_size is {train['batch_size']}, but validation_share {train['validation_share']} leaves only {left} of "
            f"the {images} training images: lower train.batch_size"
        )


# Paths that begin with ~


def _at_home(config: dict) -> dict:
    """A copy in which a user's home stands for the ~ that a path begins with, as a shell has it."""
    dataset, latency = dict(config["dataset"]), {name: dict(target) for name, target in config["latency"].items()}
    for key in ("archive", "folder"):
        if dataset[key]:
            dataset[key] = _expanded(dataset[key], f"dataset.{key}")
    for name, target in latency.items():
        if "table" in target:
            target |= {key: _expanded(target[key], f"latency.{name}.{key}") for key in ("table", "validation") if key in target}
            continue
        command = words(target["command"], f"latency.{name}: command")
        if any(word.startswith("~") for word in command):
            target["command"] = shlex.join(_expanded(word, f"latency.{name}.command") for word in command)
    paths = {key: _expanded(config[key], key) for key in ("results", "space")}
    return config | paths | {"dataset": dataset, "latency": latency}


def _expanded(path: str, key: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise InputError(
            f"{key} is {path!r}, but {path.split('/')[0]} is no user's home here: write it out, or ./~… for that name"
        )
    return expanded


def _typed(value, schema: dict, definitions: dict):
    """A copy in which text stands for the number, truth value or null that the schema wants.

    `--config 'search={epochs: 3}'` gives text for all values inside the braces, and YAML takes 1e-4 for text.
    """
    schema = resolved(schema, definitions)
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties") or {}
        return {key: _typed(part, known.get(key, other), definitions) for key, part in value.items()}
    if isinstance(value, list):
        return [_typed(part, schema.get("items", {}), definitions) for part in value]
    types = schema.get("type", "string")
    if isinstance(value, str):
        for kind, read in (("integer", int), ("number", float), ("boolean", _BOOLEANS.__getitem__), ("null", _NULLS.__getitem__)):
            if kind in types:
                with contextlib.suppress(ValueError, KeyError):
                    return read(value)
    return value


_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = {"null": None, "None": None, "~": None, "": None}


def _with_defaults(value, schema: dict, definitions: dict):
    """A copy with the defaults of the schema's properties wherever a key is absent."""
    schema = resolved(schema, definitions)
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for key, part in schema.get("properties", {}).items():
        if key in filled:
            filled[key] = _with_defaults(filled[key], part, definitions)
        elif "default" in part or "properties" in resolved(part, definitions):
            filled[key] = _with_defaults(part.get("default", {}), part, definitions)
    return filled


def resolved(schema: dict, definitions: dict) -> dict:
    """What a schema refers to, or itself."""
    return definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


# Sentences from the schema's errors


def _check_values(config: dict, schema: dict) -> None:
    if config is None or not isinstance(config, dict):
        raise InputError("the configuration is empty: copy config.yaml and change what you need")
    errors = sorted(Draft202012Validator(schema).iter_errors(config), key=lambda error: (len(error.path), str(error.path)))
    if errors:
        raise InputError(_sentence(errors[0]))
    _check_finite(config, ())


def _check_finite(value, path: tuple) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _check_finite(part, (*path, key))
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{'.'.join(path)} is {value}, but must be a finite number")


def _sentence(error) -> str:
    key = ".".join(map(str, error.absolute_path)) or "the configuration"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known), key=str)[0]
        near = difflib.get_close_matches(str(unknown), known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        where = f"{key}.{unknown}" if error.absolute_path else str(unknown)
        return f"{where} is no known key{hint}; known here are {', '.join(known)}"
    if error.validator == "required":
        [missing] = set(error.validator_value) - set(error.instance)
        return f"{key} lacks the key {missing}"
    if "propertyNames" in error.absolute_schema_path:
        return f"{key} has the name {error.instance!r}, but a name must be {allowed(error.schema)}"
    shown = "empty" if error.instance in (None, {}, [], "") else repr(error.instance)
    return f"{key} is {shown}, but must be {allowed(error.schema)}"


def allowed(schema: dict) -> str:
    """What a schema allows, in words."""
    if allowed_items := schema.get("items", {}).get("enum"):
        return "a list of " + ", ".join(allowed_items)
    if "enum" in schema:
        return "one of " + ", ".join("null" if value is None else str(value) for value in schema["enum"])
    names = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"}
    names |= {"object": "a mapping of keys to values", "null": "null", "array": "a list"}
    types = schema.get("type", [])
    words = " or ".join(names[kind] for kind in ([types] if isinstance(types, str) else types))
    bounds = [
        f"{text} {schema[key]:g}"
        for key, text in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    if "minProperties" in schema:
        bounds.append("with at least one entry")
    if "pattern" in schema:
        bounds.append(schema["$comment"])
    return " ".join([words, *([" and ".join(bounds)] if bounds else [])])
