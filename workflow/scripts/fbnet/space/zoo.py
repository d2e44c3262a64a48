"""The published architectures."""

from contextlib import suppress
from pathlib import Path

from fbnet.errors import InputError
from fbnet.mappings import read_mapping
from fbnet.space.architecture import parse
from fbnet.space.search_space import SearchSpace

ZOO = Path(__file__).parent / "zoo.yaml"


def published() -> dict[str, dict]:
    """The zoo: `space` and `ops` of each published architecture, by name. Raises InputError."""
    return read_mapping(ZOO, "zoo")


def fitting(space: SearchSpace) -> dict[str, tuple[str, ...]]:
    """The operators of all published architectures that a space can express, by name."""
    fit = {}
    for name, entry in published().items():
        with suppress(InputError):
            fit[name] = parse(entry["ops"], space)
    return fit


def in_space(name: str, space: SearchSpace) -> tuple[str, ...]:
    """The operators of one of them. Raises InputError for an unknown name, or one that the space cannot express."""
    if name not in published():
        raise InputError(f"{name} is no published architecture; known are {', '.join(published())}")
    return parse(published()[name]["ops"], space)
