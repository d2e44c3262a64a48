"""Architectures as `MODEL_ARCH` entries: the form in which FBNet model definitions are exchanged."""

import ast
import io
import itertools
import keyword
import tokenize

from fbnet.errors import InputError
from fbnet.operators import OPERATORS
from fbnet.space import SearchSpace

INDENT = "    "


def entry(space: SearchSpace, ops) -> dict:
    """The definition of one architecture.

    `block_op_type` names each layer's operator; `block_cfg` has `first` [channels, stride] of the stem, `stages`
    [expansion, channels, 1, stride] of each layer, and `backbone`, the indices of stem and layers. Raises InputError.
    """
    path = space.path(ops)
    return {
        "block_op_type": [[cell.op] for cell in path],
        "block_cfg": {
            "first": [space.stem.c_out, space.stem.stride],
            "stages": [[[OPERATORS[cell.op].expansion, cell.c_out, 1, cell.stride]] for cell in path],
            "backbone": list(range(len(path) + 1)),
        },
    }


def check_names(names, taken=()) -> None:
    """Raise InputError unless every name is a Python identifier, and is neither in `taken` nor given twice."""
    seen = set(taken)
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise InputError(f"{name!r} cannot name an architecture: it must be a Python identifier (letters, digits and _)")
        if name in seen:
            raise InputError(f"an architecture named {name} exists already: choose another name, or delete that entry")
        seen.add(name)


def render(entries: dict[str, dict]) -> str:
    """A Python module that defines `MODEL_ARCH`, data only."""
    check_names(entries)
    return f"MODEL_ARCH = {{\n{''.join(map(_render_entry, entries, entries.values()))}}}\n"


def append(text: str, entries: dict[str, dict]) -> str:
    """The source of an existing `MODEL_ARCH` module with entries added at its end; all else stays to the byte.

    The source is parsed, never executed. Raises InputError if there is no such dict, or a name is in it already.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"the file to append to is not valid Python: {error}") from None
    dicts = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Dict)
        and any(isinstance(target, ast.Name) and target.id == "MODEL_ARCH" for target in node.targets)
    ]
    if len(dicts) != 1:
        raise InputError(f"the file to append to must assign a dict to MODEL_ARCH once, but does so {len(dicts)} times")
    [model_arch] = dicts
    check_names(entries, [key.value for key in model_arch.keys if isinstance(key, ast.Constant)])

    lines = list(io.StringIO(text, newline=""))
    starts = [0, *itertools.accumulate(map(len, lines))]
    line = model_arch.end_lineno - 1
    end = starts[line] + len(lines[line].encode()[: model_arch.end_col_offset].decode())
    last = None  # the last piece of code before the closing brace: where a comma must stand
    for token in tokenize.generate_tokens(iter(lines).__next__):
        after = starts[token.end[0] - 1] + token.end[1]
        if after >= end:
            break
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            last, last_end = token.string, after
    brace = end - 1
    if last not in (",", "{"):
        text, brace = f"{text[:last_end]},{text[last_end:]}", brace + 1
    before = text[:brace].rstrip(" \t")
    newline = "" if before.endswith(("\n", "\r")) else "\n"
    return f"{before}{newline}{''.join(map(_render_entry, entries, entries.values()))}{text[brace:]}"


def _render_entry(name: str, definition: dict) -> str:
    config = definition["block_cfg"]
    return "\n".join(
        [
            f'{INDENT}"{name}": {{',
            f'{2 * INDENT}"block_op_type": [',
            *(f'{3 * INDENT}["{op}"],' for [op] in definition["block_op_type"]),
            f"{2 * INDENT}],",
            f'{2 * INDENT}"block_cfg": {{',
            f'{3 * INDENT}"first": {config["first"]},',
            f'{3 * INDENT}"stages": [',
            *(f"{4 * INDENT}{stage}," for stage in config["stages"]),
            f"{3 * INDENT}],",
            f'{3 * INDENT}"backbone": {config["backbone"]},',
            f"{2 * INDENT}}},",
            f"{INDENT}}},\n",
        ]
    )
