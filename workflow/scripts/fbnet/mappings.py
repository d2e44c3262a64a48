"""Mappings as users write them: YAML files, or JSON text."""

import json
from pathlib import Path

import yaml

from fbnet.errors import InputError


def read_mapping(source: str | Path, what: str) -> dict:
    """A mapping from a YAML file, or from JSON text (it starts with a brace). Raises InputError."""
    text = str(source)
    try:
        mapping = json.loads(text) if text.startswith("{") else yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the {what} {text} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"the {what} {text} is not valid: {' '.join(str(error).split())}") from None
    if not isinstance(mapping, dict):
        raise InputError(f"the {what} {text} must map keys to values, but is {mapping!r}")
    return mapping
