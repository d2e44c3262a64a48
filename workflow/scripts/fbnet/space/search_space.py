"""Search spaces: the layers of a network, their shapes, and the operators each may choose from."""

import difflib
import itertools
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

    Neighbouring cells of a network agree in their channels; where a stage lists several, a layer has a cell for each operator,
    c_in and c_out that may meet there, and `heads` a cell for each number of channels of the last stage. `stages` says how many
    of the layers each stage has; `dropout` is the probability that training drops a channel that the head hands to the
    classifier; `classes` is their number where no dataset says it.
    """

    name: str
    resolution: int
    stem: Cell
    layers: tuple[tuple[Cell, ...], ...]
    stages: tuple[int, ...]
    heads: tuple[Cell, ...]
    dropout: float
    classes: int
    definition: dict  # as in its YAML file, with the name, and laid over its base

    @property
    def head(self) -> Cell:
        """The head's convolution, of the most channels that the last stage may have."""
        return max(self.heads, key=lambda cell: cell.c_in)

    @property
    def elastic(self) -> bool:
        """Whether channels are a choice."""
        return any(cell.elastic for layer in self.layers for cell in layer)

    def classifier(self, classes: int) -> Cell:
        """The last cell: average pool and fully connected layer to `classes` logits."""
        c_in, size = self.head.c_out, self.head.height
        return Cell("head", "pool_fc", c_in, classes, size, size, 1)

    def fixed_cells(self, classes: int) -> tuple[Cell, ...]:
        """The cells that every network of the space has: stem, head convolution (if it is the same in all), classifier."""
        return self.stem, *(self.heads if len(self.heads) == 1 else ()), self.classifier(classes)

    def cells(self, classes: int) -> tuple[Cell, ...]:
        """Every cell in the order of the network: stem, layer by layer all candidates, head."""
        return self.stem, *(cell for layer in self.layers for cell in layer), *self.heads, self.classifier(classes)

    def path(self, ops) -> tuple[Cell, ...]:
        """The searched cells of an architecture, given as the name of a choice for each layer. Raises InputError."""
        return tuple(layer[number] for layer, number in zip(self.layers, self.numbers(ops), strict=True))

    def numbers(self, ops) -> tuple[int, ...]:
        """The numbers of an architecture's choices among the candidates of their layers. Raises InputError."""
        ops = tuple(ops)
        if len(ops) != len(self.layers):
            raise InputError(f"an architecture of space {self.name} has {len(self.layers)} operators, this one has {len(ops)}")
        numbers, channels = [], self.stem.c_out
        for layer, (op, choices) in enumerate(zip(ops, self._choices, strict=True), 1):
            if op not in choices:
                raise InputError(f"layer {layer} of space {self.name} has no operator {op!r}; it has {', '.join(choices)}")
            if channels not in choices[op]:
                raise InputError(
                    f"layer {layer} of space {self.name} gets {channels} channels, and {op!r} is for "
                    f"{' or '.join(map(str, choices[op]))}: all layers of a stage have the same channels"
                )
            numbers.append(choices[op][channels])
            channels = self.layers[layer - 1][numbers[-1]].c_out
        return tuple(numbers)

    def ops(self, numbers) -> tuple[str, ...]:
        """The choices that have these numbers among the candidates of their layers."""
        return tuple(layer[number].choice for layer, number in zip(self.layers, numbers, strict=True))

    def network_cells(self, ops, classes: int) -> tuple[Cell, ...]:
        """All cells of an architecture's network, in order: stem, one a layer, head, classifier. Raises InputError."""
        path = self.path(ops)
        [head] = [cell for cell in self.heads if cell.c_in == path[-1].c_out]
        return self.stem, *path, head, self.classifier(classes)

    @cached_property
    def _choices(self) -> tuple[dict[str, dict[int, int]], ...]:
        """Layer by layer the numbers of candidates, by choice and by the channels that they get."""
        layers: list[dict[str, dict[int, int]]] = [{} for _ in self.layers]
        for choices, layer in zip(layers, self.layers, strict=True):
            for number, cell in enumerate(layer):
                choices.setdefault(cell.choice, {})[cell.c_in] = number
        return tuple(layers)

    def check_method(self, method: str) -> None:
        """Raise InputError if a search by this method cannot choose all that is to be chosen."""
        if method == "fbnet" and self.elastic:
            raise InputError(
                f"method is 'fbnet', whose theta chooses operators alone, but space {self.name} lists channels: choose method "
                f"'one_shot', where they share weights, or give each stage one number of channels"
            )


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
    channels = (scaled(_whole("stem.channels", definition["stem"]["channels"]), width),)
    stem = Cell("stem", "conv_k3", 3, *channels, size, size, _stride("stem.stride", definition["stem"]["stride"]), norm=norm)
    _check("stem", stem)
    size = -(-size // stem.stride)

    if not isinstance(definition["stages"], list) or not definition["stages"]:
        raise InputError("stages must be a list with at least one {layers, channels, stride}")
    layers, stages = [], []
    for number, stage in enumerate(definition["stages"], 1):
        where = f"stages[{number}]"
        _keys(where, stage, ("layers", "channels", "stride"), ("candidates", "expansion"))
        own = _channels(f"{where}.channels", stage["channels"], width)
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
                for c_in, c_out in itertools.product(channels, own) if index == 0 else zip(own, own, strict=True):
                    cells.append(Cell(layer, op, c_in, c_out, size, size, stride, expansion, norm, len(own) > 1))
                    _check(f"{where}, layer {layer}", cells[-1])
            layers.append(tuple(cells))
            size = -(-size // stride)
        channels = own
        stages.append(count)

    _keys("head", definition["head"], ("channels",))
    c_out = _whole("head.channels", definition["head"]["channels"])
    heads = tuple(Cell("head", "conv_k1", c_in, c_out, size, size, 1, norm=norm) for c_in in channels)
    for head in heads:
        _check("head", head)
    return SearchSpace(name, resolution, stem, tuple(layers), tuple(stages), heads, dropout, classes, definition)


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, rounded up to a multiple of 8, as the published FBNet-96-0.35-1 has them."""
    return channels if width == 1 else 8 * math.ceil(round(channels * width / 8, 6))


def _channels(where: str, value, width: float) -> tuple[int, ...]:
    """The channels that a stage may have, times the width."""
    if not isinstance(value, list):
        return (scaled(_whole(where, value), width),)
    if not value:
        raise InputError(f"{where} is [], but must be a whole number, or a list of at least one")
    found = tuple(scaled(_whole(where, one), width) for one in value)
    for channels in found:
        if found.count(channels) > 1:
            rounded = f", multiplied by width {width:g} and rounded," if width != 1 else ""
            raise InputError(f"{where} is {value!r}, which{rounded} has {channels} more than once: list it once")
    return found


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
