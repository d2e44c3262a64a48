"""Where a result came from: hashes of code and files, versions, host."""

import ast
import hashlib
import platform
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]  # where the library stands
_PACKAGE = __name__.split(".")[0]
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PACKAGES = ("torch", "torchvision", "snakemake", "pandas", "numpy", "pyyaml")


def code_hashes(script: Path) -> dict[str, str]:
    """Short hashes of a script and of every module of ours that it imports, directly or not, by relative path.

    Hashed is the parsed code: comments, docstrings and the layout of lines do not count. The imports are read from the source,
    nothing is executed; what a room hands on is followed to the module that defines it, so that an edit changes only the
    hashes of those who use it.
    """
    script = Path(script).resolve()
    hashes: dict[str, str] = {}
    queue = [script]
    while queue:
        path = queue.pop()
        name = script.name if path == script else path.relative_to(_HOME).as_posix()
        if name not in hashes:
            hashes[name], imports = _read(path, path.stat().st_mtime_ns)
            queue += (file for module, given in imports if (file := _defining(module, given)))
    return dict(sorted(hashes.items()))


@cache
def _read(path: Path, changed_ns: int) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The hash of a source file, and what it imports of ours: (module, name). Once for each time of change."""
    text, imports = [], []
    _write(ast.parse(path.read_bytes()), text, imports)
    digest = hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]
    named = (found for node in imports for found in _imported(node))
    return digest, tuple((module, name) for module, name, _ in named if module.split(".")[0] == _PACKAGE)


def _write(node, text: list[str], imports: list[ast.AST]) -> None:
    """Parsed code as text, and its imports. Places do not stand there, nor docstrings and what follows from where a name stands.

    Nor do empty fields, of which each Python has others. A plain loop, since each start of Snakemake waits for it.
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports.append(node)
    text.append(type(node).__name__)
    documented = isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name == "ctx":
            continue
        text.append(name)
        if isinstance(value, ast.AST):
            _write(value, text, imports)
        elif isinstance(value, list):
            for part in value[documented and name == "body" :]:
                if isinstance(part, ast.AST):
                    _write(part, text, imports)
                else:
                    text.append(repr(part))
        else:
            text.append(repr(value))
    text.append(")")


def _imported(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """What an import imports, as (module, name, the name that it gets here); of `import a.b` the name is empty."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, "", alias.asname or alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from ((node.module, alias.name, alias.asname or alias.name) for alias in node.names)


@cache
def _handed_on(front: Path, changed_ns: int) -> dict[str, tuple[str, str]]:
    """What the front of a room imports, by the name that it gets there: (module, name)."""
    body = ast.parse(front.read_bytes()).body
    return {here: (module, name) for node in body for module, name, here in _imported(node)}


def _defining(module: str, name: str) -> Path | None:
    """The file that defines a name of a module of ours; a module of that name if there is one."""
    place = _HOME.joinpath(*module.split("."))
    if place.with_suffix(".py").is_file():
        return place.with_suffix(".py")
    if name and (inside := _defining(f"{module}.{name}", "")):
        return inside
    front = place / "__init__.py"
    if not front.is_file():
        return None
    handed_on = _handed_on(front, front.stat().st_mtime_ns)
    return _defining(*handed_on[name]) if name in handed_on else front


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
