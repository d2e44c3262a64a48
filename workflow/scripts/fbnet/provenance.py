"""Where a result came from: hashes of code and files, versions, host."""

import ast
import hashlib
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "snakemake", "pandas", "numpy", "pyyaml")


def code_hashes(script: Path) -> dict[str, str]:
    """Short content hashes of a script and of every local module that it imports, directly or not, by relative path.

    The imports are read from the source, nothing is executed; an edit changes only the hashes of those who use it.
    """
    root = Path(script).resolve().parent
    hashes: dict[str, str] = {}
    queue = [Path(script).resolve()]
    while queue:
        path = queue.pop()
        name = path.relative_to(root).as_posix()
        if name not in hashes:
            hashes[name], imports = _read(path, path.stat().st_mtime_ns)
            queue += _local_files(imports, root)
    return dict(sorted(hashes.items()))


@cache
def _read(path: Path, changed_ns: int) -> tuple[str, frozenset[str]]:
    """The hash of a source file and the names that it imports; once for each time of change, although many scripts import it."""
    source = path.read_bytes()
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return hashlib.sha256(source).hexdigest()[:12], frozenset(names)


def _local_files(names: Iterable[str], root: Path) -> list[Path]:
    # "a.b" also runs a/__init__.py
    packages = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    files = [root.joinpath(*name.split(".")) for name in packages]
    return [path for file in files for path in (file.with_suffix(".py"), file / "__init__.py") if path.is_file()]


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
