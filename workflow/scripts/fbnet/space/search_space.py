"""Search spaces: the layers of a network, their shapes, and the operators each may choose from."""

import difflib
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fbnet.errors import InputError
from fbnet.mappings import read_mapping
from fbnet.space.cell import STRIDES, Cell
from fbnet.space.operators import CANDIDATES, OPERATORS

SPACES = Path(__file__).parent / "spaces"  # the spaces that go by name


@dataclass(frozen=True)
class SearchSpace:
    """A macro-architecture: stem, searched layers with their candidate cells, head. Read from YAML by `read_space`.

    `stages` says how many of the layers each stage has; `dropout` is the probability that training drops a channel that
    the head hands to the classifier; `classes` is their number where no dataset says it.
    """

    name: str
    resolution: int
    stem: Cell
    layers: tuple[tuple[Cell, ...], ...]
    stages: tuple[int, ...]
    head: Cell
    dropout: float
    classes: int
    definition: dict  # as in its YAML file, with the name, and laid over its base

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
        return tuple(layer[number] for layer, number in zip(self.layers, self.numbers(ops), strict=True))

    def numbers(self, ops) -> tuple[int, ...]:
        """The numbers of an architecture's operators among the candidates of their layers. Raises InputError."""
        ops = tuple(ops)
        if len(ops) != len(self.layers):
            raise InputError(f"an architecture of space {self.name} has {len(self.layers)} operators, this one has {len(ops)}")
        for layer, (op, choices) in enumerate(zip(ops, self._choices, strict=True), 1):
            if op not in choices:
                raise InputError(f"layer {layer} of space {self.name} has no operator {op!r}; it has {', '.join(choices)}")
        return tuple(choices[op] for op, choices in zip(ops, self._choices, strict=True))

    def ops(self, numbers) -> tuple[str, ...]:
        """The operators that have these numbers among the candidates of their layers."""
        return tuple(layer[number].op for layer, number in zip(self.layers, numbers, strict=True))

    def network_cells(self, ops, classes: int) -> tuple[Cell, ...]:
        """All cells of an architecture's network, in order: stem, one a layer, head, classifier. Raises InputError."""
        return self.stem, *self.path(ops), self.head, self.classifier(classes)

    @cached_property
    def _choices(self) -> tuple[dict[str, int], ...]:
        return tuple({cell.op: number for number, cell in enumerate(layer)} for layer in self.layers)


def read_space(source: str | Path | dict) -> SearchSpace:
    """Read a search space: its name, a YAML file, JSON text, or its definition. Raises InputError that names key and value.

    A definition with a `base` (the same ways to say which) is laid over that one, key by key.
    """
    definition = _definition(source, ())
    try:
        return make_space(definition)
    except InputError as error:
        raise InputError(f"search space {definition.get('name')}: {error}") from None


def _definition(source: str | Path | dict, above: tuple) -> dict:
    if isinstance(source, dict):
        definition = source
    elif str(source).startswith("{"):
        definition = read_mapping(source, "search space")
    else:
        path = find_space(str(source))
        definition = {"name": path.stem} | read_mapping(path, "search space")
    if "base" not in definition:
        return definition
    base = definition["base"]
    if not isinstance(base, str | dict):
        raise InputError(f"search space {definition.get('name')}: base is {base!r}, but must name a search space")
    if base in above:
        raise InputError(f"search space {base} is based on itself: {' → '.join(map(str, (*above, base)))}")
    own = {key: value for key, value in definition.items() if key != "base"}
    return _definition(base, (*above, base)) | own


def find_space(name: str) -> Path:
    """The file of a search space, given by its name in workflow/spaces/ or as a path. Raises InputError."""
    known = sorted(path.stem for path in SPACES.glob("*.yaml"))
    if name in known:
        return SPACES / f"{name}.yaml"
    if not Path(name).is_file():
        raise InputError(f"space is {name!r}, but must be {', '.join(known)}, or a YAML file (there is none of that name)")
    return Path(name)


def make_space(definition: dict) -> SearchSpace:
    """Derive all shapes of a space from its definition (the content of a space's YAML file). Raises InputError."""
    _keys(
        *("the definition", definition, ("name", "resolution", "stem", "stages", "head")),
        ("candidates", "expansion", "width", "dropout", "norm", "classes"),
    )
    name = definition["name"]
    if not isinstance(name, str) or not name:
        raise InputError(f"name is {name!r}, but must be a text")
    size = resolution = _whole("resolution", definition["resolution"])
    norm = _norm(definition.get("norm", "bn"))
    width = _number("width", definition.get("width", 1.0), 0.01, 100)
    dropout = _number("dropout", definition.get("dropout", 0.0), 0, 0.99)
    classes = _whole("classes", definition.get("classes", 10))

    _keys("stem", definition["stem"], ("channels", "stride"))
    channels = scaled(_whole("stem.channels", definition["stem"]["channels"]), width)
    stem = Cell("stem", "conv_k3", 3, channels, size, size, _stride("stem.stride", definition["stem"]["stride"]), norm=norm)
    _check("stem", stem)
    size = -(-size // stem.stride)

    if not isinstance(definition["stages"], list) or not definition["stages"]:
        raise InputError("stages must be a list with at least one {layers, channels, stride}")
    layers, stages = [], []
    for number, stage in enumerate(definition["stages"], 1):
        where = f"stages[{number}]"
        _keys(where, stage, ("layers", "channels", "stride"), ("candidates", "expansion"))
        c_out = scaled(_whole(f"{where}.channels", stage["channels"]), width)
        first_stride = _stride(f"{where}.stride", stage["stride"])
        count = _whole(f"{where}.layers", stage["layers"])
        candidates = _layerwise(where, "candidates", stage, definition, count)
        expansions = _layerwise(where, "expansion", stage, definition, count)
        for index in range(count):
            stride = first_stride if index == 0 else 1
            layer = str(len(layers) + 1)
            cells = []
            for op in _candidates(f"{where}, layer {layer}: candidates", candidates[index]):
                expansion = OPERATORS[op].expansion
                if expansion is None:
                    if expansions[index] is None:
                        raise InputError(
                            f"{where}, layer {layer}: {op} takes its expansion from the stage: add the key expansion"
                        )
                    expansion = _whole(f"{where}.expansion", expansions[index])
                cells.append(Cell(layer, op, channels, c_out, size, size, stride, expansion, norm))
                _check(f"{where}, layer {layer}", cells[-1])
            layers.append(tuple(cells))
            channels, size = c_out, -(-size // stride)
        stages.append(count)

    _keys("head", definition["head"], ("channels",))
    c_out = _whole("head.channels", definition["head"]["channels"])
    head = Cell("head", "conv_k1", channels, c_out, size, size, 1, norm=norm)
    _check("head", head)
    return SearchSpace(name, resolution, stem, tuple(layers), tuple(stages), head, dropout, classes, definition)


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, rounded up to a multiple of 8, as the published FBNet-96-0.35-1 has them."""
    return channels if width == 1 else 8 * math.ceil(round(channels * width / 8, 6))


def _check(where: str, cell: Cell) -> None:
    try:
        cell.check()
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _keys(where: str, value, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    known = (*required, *optional)
    if not isinstance(value, dict):
        raise InputError(f"{where} must have the keys {', '.join(required)}, but is {value!r}")
    for key in value:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key!r}; known are {', '.join(known)}")
    for key in required:
        if key not in value:
            raise InputError(f"{where} lacks the key {key!r}")


def _whole(where: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise InputError(f"{where} is {value!r}, but must be a whole number from 1 to 100000")
    return value


def _number(where: str, value, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InputError(f"{where} is {value!r}, but must be a number from {least:g} to {most:g}")
    return value


def _stride(where: str, value) -> int:
    if _whole(where, value) not in STRIDES:
        raise InputError(f"{where} is {value!r}, but must be one of {', '.join(map(str, STRIDES))}")
    return value


def _norm(value) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"bn|frozen|none|gn[1-9][0-9]{0,3}", value):
        raise InputError(f"norm is {value!r}, but must be bn, frozen, none, or gn with a number of groups, like gn8")
    return value


def _layerwise(where: str, key: str, stage: dict, definition: dict, count: int) -> list:
    """The value of `key` for each layer of a stage: its own or else the space's, for all layers or a list with one for each."""
    value = stage.get(key, definition.get(key))
    if not isinstance(value, list) or (key == "candidates" and not any(isinstance(part, list) for part in value)):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{where}: {key} is given layer by layer, for {len(value)} layers, but the stage has {count}")
    return value


def _candidates(where: str, names) -> tuple[str, ...]:
    if names == "all":
        return CANDIDATES
    if not isinstance(names, list) or not names:
        raise InputError(f"{where} is {names!r}, but must be all, or a list of at least one operator of {', '.join(CANDIDATES)}")
    for name in names:
        if name not in CANDIDATES:
            near = difflib.get_close_matches(str(name), CANDIDATES, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{where} names an unknown operator {name!r}{hint}; known are {', '.join(CANDIDATES)}")
        if names.count(name) > 1:
            raise InputError(f"{where} names {name} {names.count(name)} times; each operator may stand there once")
    return tuple(names)
