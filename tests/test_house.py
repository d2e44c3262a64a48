"""The house: which room may import which, what a room's front does, and what it costs to enter."""

import ast
import re
import subprocess
import sys

import pytest

from conftest import ROOT

LIBRARY = ROOT / "workflow/scripts/fbnet"
GROUND = ("errors", "mappings", "terminal", "runtime", "exclusive", "provenance", "limits", "device", "memory", "settings")
STANDS_ON = {  # beside the ground
    "space": set(),
    "network": {"space"},
    "data": set(),
    "latency": {"network", "space"},
    "training": {"data"},
    "search": {"training", "data", "latency", "network", "space"},
    "architecture": {"latency", "network", "space"},
    "evaluation": {"architecture", "search", "training", "data", "latency", "network", "space"},
    "report": {"evaluation", "architecture", "search", "training", "data", "latency", "network", "space"},
    "sweep": {"architecture"},
    "config": {"sweep", "architecture", "latency", "data", "space"},
}
FILES = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__main__.py")


def imported(path) -> set[str]:
    """The modules and rooms of the library that a file imports, by their first word; also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}, line {node.lineno}: an import says the whole name"
            if node.module.split(".")[0] == "fbnet":
                found |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("fbnet") for alias in node.names), f"{path}: from fbnet.… import …"
    return found


def test_every_folder_and_file_has_its_place():
    rooms = {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.stem for path in LIBRARY.glob("*.py")} - {"__init__", "__main__"}
    assert rooms | files == {*STANDS_ON, *GROUND}
    tests = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert tests == rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_room_imports_only_what_it_stands_on(path):
    place = path.relative_to(LIBRARY).parts
    room = place[0].removesuffix(".py")
    ground = {*GROUND[: GROUND.index(room)]} if room in GROUND else {*GROUND, room}
    assert imported(path) <= ground | STANDS_ON.get(room, set())


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_front_hands_on_and_does_nothing_else(path):
    docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in rest)
    names = {alias.name for node in rest if isinstance(node, ast.ImportFrom) for alias in node.names}
    [listed] = [ast.literal_eval(node.value) for node in rest if isinstance(node, ast.Assign)] or [[]]
    assert set(listed) == names
    assert "fbnet." in path.read_text(encoding="utf-8") or path.parent.name == "report"


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("fbnet.config, fbnet.evaluation, fbnet.architecture", ["torch", "numpy", "pandas", "tqdm", "PIL"]),  # as the Snakefile
        ("fbnet.latency.profiling, fbnet.latency.machine", ["pandas", "scipy", "torchvision", "onnx", "psutil"]),
    ],
)
def test_what_a_room_does_not_need_is_not_imported(modules, absent):
    probe = f"import sys, {modules}; print(*({absent!r} & sys.modules.keys()))".replace(repr(absent), repr({*absent}))
    done = subprocess.run([sys.executable, "-c", probe], env={"PYTHONPATH": str(LIBRARY.parent)}, capture_output=True, text=True)
    assert done.stdout == "\n", done.stdout + done.stderr


def test_every_rule_leaves_a_log_and_its_costs_and_can_have_an_environment():
    rules = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(encoding="utf-8"), re.M | re.S):
            rules[name] = body
    assert len(rules) >= 16
    for name, body in rules.items():
        if "shell:" not in body:  # a rule that only names others' files
            continue
        for directive, what in (("log", "logs"), ("benchmark", "benchmarks"), ("conda", r"envs/fbnet\.yaml")):
            assert re.search(rf"^    {directive}:\n        .*{what}", body, re.M), f"{name}: {directive}"
        assert f"/logs/{name}/" in body
        assert f"/benchmarks/{name}/" in body
        assert "--log {log:q}" in body, name


def test_a_script_is_a_door():
    for path in (ROOT / "workflow/scripts").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path.name


NO_TEXT = {"Image", "tarfile", "os"}  # whose `open` opens none


def in_the_encoding_of_the_locale(call: ast.Call) -> bool:
    """Whether a call opens text, a file or a pipe, without saying in which encoding."""
    called, given = call.func, {keyword.arg: keyword.value for keyword in call.keywords}
    name, whose = getattr(called, "attr", getattr(called, "id", "")), getattr(getattr(called, "value", None), "id", "")
    if "encoding" in given or (name == "open" and whose in NO_TEXT):
        return False
    if name in ("open", "fdopen"):
        place = 0 if name == "open" and isinstance(called, ast.Attribute) else 1
        mode = given.get("mode", *call.args[place : place + 1])
        return mode is None or "b" not in ast.literal_eval(mode)
    return name == "FileHandler" or (name in ("read_text", "write_text") and isinstance(called, ast.Attribute))


@pytest.mark.parametrize("folder", ["workflow", "benchmarks", "tests"])
def test_our_files_are_utf_8_whatever_the_locale(folder):
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and in_the_encoding_of_the_locale(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    for path in (ROOT / folder).rglob("*.smk"):
        found += re.findall(r".*_text\(\).*", path.read_text(encoding="utf-8"))
    assert not found
