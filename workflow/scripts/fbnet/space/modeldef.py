"""Architectures as `MODEL_ARCH` entries: the form in which FBNet model definitions are exchanged."""

import ast
import io
import itertools
import json
import keyword
import tokenize

from fbnet.errors import InputError
from fbnet.space.search_space import SearchSpace, make_space

INDENT = "    "
MOST_LAYERS = 1000


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
            "stages": [[[cell.expansion, cell.c_out, 1, cell.stride]] for cell in path],
            "backbone": list(range(len(path) + 1)),
        },
    }


def to_space(name: str, entry: dict, base: SearchSpace) -> tuple[SearchSpace, tuple[str, ...]]:
    """The macro-architecture of an entry, as a space without a choice, and its operators.

    Stem and layers are the entry's; what it does not say (input size, head, norm, dropout, classes) is that of `base`. Where
    an entry gives an operator another expansion than its name says, the name counts. Raises InputError that names the place.
    """
    try:
        _check_entry(entry)
        config = entry["block_cfg"]
        if config["first"][2:] not in ([], [3]):
            raise InputError(f"block_cfg.first has kernel size {config['first'][2]}, but the stem's is 3")
        layers = []
        for number, (ops, blocks) in enumerate(zip(entry["block_op_type"], config["stages"], strict=True)):
            if number not in config["backbone"]:
                raise InputError(f"block_cfg.backbone leaves out {number}: only networks of all their stages can be built")
            strides = [(block, stride) for block in blocks for stride in [block[3], *[1] * (block[2] - 1)]]
            layers += [(op, *block[:2], stride) for op, (block, stride) in zip(ops, strides, strict=True)]
        stages = []
        for op, expansion, channels, stride in layers:
            if stride != 1 or not stages or channels != stages[-1]["channels"]:
                stages.append({"layers": 0, "channels": channels, "stride": stride, "expansion": [], "candidates": []})
            stages[-1]["layers"] += 1
            stages[-1]["expansion"].append(expansion)
            stages[-1]["candidates"].append([op])
        stem = {"channels": config["first"][0], "stride": config["first"][1]}
        kept = {key: value for key, value in base.definition.items() if key not in ("candidates", "expansion", "width")}
        return make_space(kept | {"name": name, "stem": stem, "stages": stages}), tuple(op for op, *_ in layers)
    except InputError as error:
        raise InputError(f"the MODEL_ARCH entry {name}: {error}") from None


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


def read(text: str) -> dict[str, dict]:
    """The entries of a `MODEL_ARCH` module by name, as plain data. The source is parsed, never executed.

    Beside literals, only `[n for n in range(23)]` is understood. Raises InputError that names the line of anything else.
    """
    model_arch = _Ranges().visit(_find_model_arch(text))
    for node in ast.walk(model_arch):
        if not isinstance(node, ast.Dict | ast.List | ast.Tuple | ast.Constant | ast.UnaryOp | ast.USub | ast.Load):
            source = " ".join(ast.unparse(node).split())[:60]
            raise InputError(f"MODEL_ARCH, line {node.lineno}: {source!r} is no plain data; it is not executed")
        if isinstance(node, ast.Dict):
            seen = set()
            for key in node.keys:
                if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                    raise InputError(f"MODEL_ARCH, line {node.lineno}: every key must be a text")
                if key.value in seen:
                    raise InputError(f"MODEL_ARCH, line {key.lineno}: the key {key.value!r} is there twice")
                seen.add(key.value)
    try:
        return ast.literal_eval(model_arch)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"MODEL_ARCH is no plain data: {error}") from None


class _Ranges(ast.NodeTransformer):
    """`[n for n in range(23)]` as the list that it stands for."""

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        match node:
            case ast.ListComp(
                elt=ast.Name(id=element),
                generators=[
                    ast.comprehension(
                        target=ast.Name(id=target),
                        iter=ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int(stop))], keywords=[]),
                        ifs=[],
                        is_async=0,
                    )
                ],
            ) if element == target and 0 <= stop <= MOST_LAYERS:
                numbers = [ast.copy_location(ast.Constant(number), node) for number in range(stop)]
                return ast.copy_location(ast.List(numbers, ast.Load()), node)
        return node


def _check_entry(entry) -> None:
    """Raise InputError, naming the part, unless an entry has the form that `entry` gives."""

    def whole(value, least=1) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    def check(holds: bool, part: str, what: str) -> None:
        if not holds:
            raise InputError(f"{part} must be {what}")

    def check_keys(value, part: str, keys: set[str]) -> None:
        check(isinstance(value, dict) and value.keys() == keys, part, f"a mapping with the keys {', '.join(sorted(keys))}")

    check_keys(entry, "the entry", {"block_op_type", "block_cfg"})
    types, config = entry["block_op_type"], entry["block_cfg"]
    check_keys(config, "block_cfg", {"first", "stages", "backbone"})
    first, stages, backbone = config["first"], config["stages"], config["backbone"]
    check(isinstance(first, list) and len(first) in (2, 3) and all(map(whole, first)), "block_cfg.first", "[channels, stride]")
    check(isinstance(backbone, list) and all(whole(n, 0) for n in backbone), "block_cfg.backbone", "a list of whole numbers")
    check(isinstance(types, list) and len(types) > 0, "block_op_type", "a list with at least one list of operators")
    check(
        isinstance(stages, list) and len(stages) == len(types),
        *("block_cfg.stages", f"a list as long as block_op_type, which has {len(types)} parts"),
    )
    for number, (ops, blocks) in enumerate(zip(types, stages, strict=True)):
        check(
            isinstance(blocks, list)
            and len(blocks) > 0
            and all(isinstance(block, list) and len(block) == 4 and all(map(whole, block)) for block in blocks),
            *(f"block_cfg.stages[{number}]", "a list of [expansion, channels, layers, stride]"),
        )
        count = sum(block[2] for block in blocks)
        check(
            isinstance(ops, list)
            and len(ops) == count
            and all(isinstance(op, str) and op.isascii() and op.isidentifier() for op in ops),
            *(f"block_op_type[{number}]", f"a list of {count} operator names, as many as block_cfg.stages says"),
        )


def append(text: str, entries: dict[str, dict]) -> str:
    """The source of an existing `MODEL_ARCH` module with entries added at its end; all else stays to the byte.

    The source is parsed, never executed. Raises InputError if there is no such dict, or a name is in it already.
    """
    model_arch = _find_model_arch(text)
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


def _find_model_arch(text: str) -> ast.Dict:
    """The one dict that the source of a module assigns to `MODEL_ARCH`."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"the MODEL_ARCH file is not valid Python: {error or 'nested too deeply'}") from None
    dicts = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Dict)
        and any(isinstance(target, ast.Name) and target.id == "MODEL_ARCH" for target in node.targets)
    ]
    if len(dicts) != 1:
        raise InputError(f"the MODEL_ARCH file must assign a dict to MODEL_ARCH once, but does so {len(dicts)} times")
    return dicts[0]


def _render_entry(name: str, definition: dict) -> str:
    try:
        _check_entry(definition)
    except InputError as error:
        raise InputError(f"the MODEL_ARCH entry {name}: {error}") from None
    config = definition["block_cfg"]
    return "\n".join(
        [
            f'{INDENT}"{name}": {{',
            f'{2 * INDENT}"block_op_type": [',
            *(f"{3 * INDENT}{json.dumps(ops)}," for ops in definition["block_op_type"]),
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
