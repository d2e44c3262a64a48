"""Find an architecture by what people call it: a published name, a file that holds it, or its string."""

import argparse
import difflib
import json
from pathlib import Path

from fbnet.errors import InputError
from fbnet.space import Architecture, modeldef, parse, published, read_architectures, read_space


def find(arch: str, space: str | Path | None = None, classes: int | None = None, name: str | None = None) -> Architecture:
    """An architecture, from a name of the zoo, a file, or a string such as `k3_e1 | k3_e6 skip`.

    Files: a MODEL_ARCH module (.py), the JSON of export_modeldef, or the TSV of sample_architecture; `name` picks one of
    several, the first if None. A name of the zoo and a JSON bring their space along, which `space` replaces; all others need
    it, a MODEL_ARCH module for what it does not say. `classes` defaults to what they or the space say. Raises InputError.
    """
    zoo = published()
    if arch in zoo:
        own = zoo[arch]["space"]
        found = read_space(space or ({"name": arch} | own if isinstance(own, dict) else own))
        return Architecture(arch, found, parse(zoo[arch]["ops"], found), classes or found.classes)
    path = Path(arch)
    if path.suffix in (".py", ".json", ".tsv"):
        return _in_file(path, space, classes, name)
    if len(arch.split()) == 1 and space is None:
        near = difflib.get_close_matches(arch, zoo, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"{arch!r} is no published architecture{hint}; known are {', '.join(zoo)}")
    found = _needed(space, "a string of operators")
    return Architecture(name or "architecture", found, parse(arch, found), classes or found.classes)


def add_options(parser: argparse.ArgumentParser, choice=None) -> None:
    """The options of a program that takes an architecture: the arguments of `find`; --arch may be one of a group's options."""
    arch = "a published name, a file (.py, .json, .tsv), or a string of operators"
    (choice or parser).add_argument("--arch", required=choice is None, help=arch)
    parser.add_argument("--space", help="search space: a name, a YAML file, or JSON; a published name and a .json have their own")
    parser.add_argument("--name", help="which of a file's architectures (default: the first); or the name for a string")
    parser.add_argument("--classes", type=int, help="number of classes (default: what the file or the space says)")


def _in_file(path: Path, space, classes: int | None, name: str | None) -> Architecture:
    try:
        if path.suffix == ".py":
            entries = modeldef.read(path.read_text(encoding="utf-8"))
            name = _choose(name, entries, path)
            found, ops = modeldef.to_space(name, entries[name], _needed(space, f"the MODEL_ARCH file {path}"))
        elif path.suffix == ".json":
            document = json.loads(path.read_text(encoding="utf-8"))
            lines = {key: entry["ops"] for key, entry in document["architectures"].items()}
            name = _choose(name, lines, path)
            found = read_space(space or document["provenance"]["space"])
            ops = parse(lines[name], found)
            classes = classes or len(document["provenance"]["classes"])
        else:
            found = _needed(space, f"the architectures {path}")
            lines = {row["name"]: row["ops"] for row in read_architectures(path, found)}
            name = _choose(name, lines, path)
            ops = lines[name]
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no architectures that can be read: {type(error).__name__}: {error}") from None
    return Architecture(name, found, ops, classes or found.classes)


def _choose(name: str | None, names, path: Path) -> str:
    if not names or (name is not None and name not in names):
        raise InputError(f"{path} has no architecture {name or ''}; it has {', '.join(map(str, names)) or 'none at all'}")
    return next(iter(names)) if name is None else name


def _needed(space, what: str):
    if space is None:
        raise InputError(f"{what} does not say which space it is of: name one with --space")
    return read_space(space)
