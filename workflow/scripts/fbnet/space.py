"""Search spaces: the layers of a network, their shapes, and the operators each may choose from."""

import difflib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from fbnet.errors import InputError
from fbnet.operators import CANDIDATES, OPERATORS, STRIDES


@dataclass(frozen=True)
class Cell:
    """One operator at one place of the network: input [N, c_in, height, width] → [N, c_out, ⌈height/stride⌉, ⌈width/stride⌉].

    `layer` is "stem", "head", or the number of a searched layer, counted from 1.
    """

    layer: str
    op: str
    c_in: int
    c_out: int
    height: int
    width: int
    stride: int

    @property
    def build_key(self) -> tuple:
        """(op, c_in, c_out, height, width, stride): cells that agree in it are the same module on the same input."""
        return (self.op, self.c_in, self.c_out, self.height, self.width, self.stride)


@dataclass(frozen=True)
class SearchSpace:
    """A macro-architecture: stem, searched layers with their candidate cells, head. Read from YAML by `read_space`."""

    name: str
    resolution: int
    stem: Cell
    layers: tuple[tuple[Cell, ...], ...]
    head: Cell
    definition: dict  # as in its YAML file, with the name

    def classifier(self, classes: int) -> Cell:
        """The last cell: average pool and fully connected layer to `classes` logits."""
        c_in, size = self.head.c_out, self.head.height
        return Cell("head", "pool_fc", c_in, classes, size, size, 1)

    def fixed_cells(self, classes: int) -> tuple[Cell, ...]:
        """The cells that every network of the space has: stem, head convolution, classifier."""
        return self.stem, self.head, self.classifier(classes)

    def cells(self, classes: int) -> tuple[Cell, ...]:
        """Every cell in the order of the network: stem, layer by layer all candidates, head."""
        return self.stem, *(cell for layer in self.layers for cell in layer), self.head, self.classifier(classes)

    def path(self, ops) -> tuple[Cell, ...]:
        """The searched cells of an architecture, given as one operator name a layer. Raises InputError."""
        ops = tuple(ops)
        if len(ops) != len(self.layers):
            raise InputError(f"an architecture of space {self.name} has {len(self.layers)} operators, this one has {len(ops)}")
        for op, choices in zip(ops, self._choices, strict=True):
            if op not in choices:
                layer = next(iter(choices.values())).layer
                raise InputError(f"layer {layer} of space {self.name} has no operator {op!r}; it has {', '.join(choices)}")
        return tuple(choices[op] for op, choices in zip(ops, self._choices, strict=True))

    @cached_property
    def _choices(self) -> tuple[dict[str, Cell], ...]:
        return tuple({cell.op: cell for cell in layer} for layer in self.layers)


def read_space(source: str | Path) -> SearchSpace:
    """Read a search space from a YAML file, or from JSON text. Raises InputError that names key and value."""
    definition = read_mapping(source, "search space")
    if not str(source).startswith("{"):
        definition = {"name": Path(source).stem} | definition
    try:
        return make_space(definition)
    except InputError as error:
        raise InputError(f"search space {definition.get('name')}: {error}") from None


def read_mapping(source: str | Path, what: str) -> dict:
    """A mapping from a YAML file, or from JSON text (it starts with a brace). Raises InputError."""
    text = str(source)
    try:
        mapping = json.loads(text) if text.startswith("{") else yaml.safe_load(Path(source).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the {what} {text} cannot be read: {error}") from None
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise InputError(f"the {what} {text} is not valid: {' '.join(str(error).split())}") from None
    if not isinstance(mapping, dict):
        raise InputError(f"the {what} {text} must map keys to values, but is {mapping!r}")
    return mapping


def make_space(definition: dict) -> SearchSpace:
    """Derive all shapes of a space from its definition (the content of a space's YAML file). Raises InputError."""
    _keys("the file", definition, ("name", "resolution", "stem", "stages", "head", "candidates"))
    name = definition["name"]
    size = _whole("resolution", definition["resolution"])
    candidates = _candidates(definition["candidates"])

    _keys("stem", definition["stem"], ("channels", "stride"))
    channels = _whole("stem.channels", definition["stem"]["channels"])
    stem = Cell("stem", "conv_k3", 3, channels, size, size, _stride("stem.stride", definition["stem"]["stride"]))
    size = -(-size // stem.stride)

    if not isinstance(definition["stages"], list) or not definition["stages"]:
        raise InputError("stages must be a list with at least one {layers, channels, stride}")
    layers = []
    for number, stage in enumerate(definition["stages"], 1):
        where = f"stages[{number}]"
        _keys(where, stage, ("layers", "channels", "stride"))
        c_out = _whole(f"{where}.channels", stage["channels"])
        first_stride = _stride(f"{where}.stride", stage["stride"])
        for index in range(_whole(f"{where}.layers", stage["layers"])):
            stride = first_stride if index == 0 else 1
            layer = str(len(layers) + 1)
            for op in candidates:
                try:
                    OPERATORS[op].check(channels, c_out, stride)
                except InputError as error:
                    raise InputError(f"{where}, layer {layer}: {error}") from None
            layers.append(tuple(Cell(layer, op, channels, c_out, size, size, stride) for op in candidates))
            channels, size = c_out, -(-size // stride)

    _keys("head", definition["head"], ("channels",))
    head = Cell("head", "conv_k1", channels, _whole("head.channels", definition["head"]["channels"]), size, size, 1)
    return SearchSpace(name, stem.height, stem, tuple(layers), head, definition)


def _keys(where: str, value, expected: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where} must have the keys {', '.join(expected)}, but is {value!r}")
    for key in value:
        if key not in expected:
            raise InputError(f"{where} has an unknown key {key!r}; known are {', '.join(expected)}")
    for key in expected:
        if key not in value:
            raise InputError(f"{where} lacks the key {key!r}")


def _whole(where: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{where} is {value!r}, but must be a whole number of at least 1")
    return value


def _stride(where: str, value) -> int:
    if _whole(where, value) not in STRIDES:
        raise InputError(f"{where} is {value!r}, but must be one of {', '.join(map(str, STRIDES))}")
    return value


def _candidates(names) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise InputError(f"candidates is {names!r}, but must be a list of at least one operator of {', '.join(CANDIDATES)}")
    for name in names:
        if name not in CANDIDATES:
            near = difflib.get_close_matches(str(name), CANDIDATES, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"candidates names an unknown operator {name!r}{hint}; known are {', '.join(CANDIDATES)}")
        if names.count(name) > 1:
            raise InputError(f"candidates names {name} {names.count(name)} times; each operator may stand there once")
    return tuple(names)
