"""The hashes of a script's code: what they follow, and what changes them."""

import pytest

from conftest import ROOT
from fbnet import provenance
from fbnet.provenance import code_hashes

SCRIPT = '"""What it does."""\nfrom fbnet.room import use\n\n\ndef main():\n    """Use it."""\n    return use(1)\n'
FILES = {
    "run.py": SCRIPT,
    "fbnet/__init__.py": "",
    "fbnet/ground.py": "BASE = 1\n",
    "fbnet/room/__init__.py": '"""A room."""\n\nfrom fbnet.room.other import unused\nfrom fbnet.room.used import used as use\n',
    "fbnet/room/used.py": "import os\n\nfrom fbnet.ground import BASE\n\n\ndef used(x):\n    return x + BASE\n",
    "fbnet/room/other.py": "def unused():\n    from fbnet import ground\n\n    return ground.BASE\n",
}


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_HOME", tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_what_a_room_hands_on_is_followed_to_where_it_is_defined(house):
    assert list(code_hashes(house / "run.py")) == ["fbnet/ground.py", "fbnet/room/used.py", "run.py"]
    (house / "run.py").write_text("from fbnet.room import other\nimport fbnet.ground\n", encoding="utf-8")
    assert list(code_hashes(house / "run.py")) == ["fbnet/ground.py", "fbnet/room/other.py", "run.py"]
    (house / "run.py").write_text("from fbnet.room import unused\n", encoding="utf-8")
    assert list(code_hashes(house / "run.py")) == ["fbnet/ground.py", "fbnet/room/other.py", "run.py"]
    (house / "fbnet/room/__init__.py").write_text("def unused():\n    pass\n", encoding="utf-8")
    assert list(code_hashes(house / "run.py")) == ["fbnet/room/__init__.py", "run.py"]


def test_an_import_within_a_function_counts(house):
    (house / "run.py").write_text("def main():\n    from fbnet.room import use\n\n    return use\n", encoding="utf-8")
    assert "fbnet/room/used.py" in code_hashes(house / "run.py")


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT.replace("return", "# why\n    return"),
        SCRIPT.replace("What it does", "What else it does").replace("Use it.", "Use it\n\n    twice."),
        SCRIPT.replace("use(1)", "use(\n        1,\n    )"),
        SCRIPT.replace("    return use(1)", "    return (use(1))"),
        SCRIPT.replace('"""', "'''"),
        SCRIPT.replace('"""What it does."""\n', ""),
    ],
    ids=["comment", "docstrings", "layout", "parentheses", "quotes", "no docstring"],
)
def test_what_does_not_count(house, text):
    before = code_hashes(house / "run.py")
    (house / "run.py").write_text(text, encoding="utf-8")
    assert code_hashes(house / "run.py") == before


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT.replace("1", "2"),
        SCRIPT.replace("1", "1.0"),
        SCRIPT.replace("use(1)", "use(None)"),
        SCRIPT.replace("use(1)", "use()"),
        SCRIPT.replace("return use(1)", "use(1)"),
        SCRIPT.replace("use(1)", '"""Use it."""'),
    ],
    ids=["number", "kind of number", "none", "no argument", "no return", "text"],
)
def test_what_counts(house, text):
    before = code_hashes(house / "run.py")
    (house / "run.py").write_text(text, encoding="utf-8")
    assert code_hashes(house / "run.py") != before


def test_the_scripts_have_the_code_that_they_use():
    scripts = ROOT / "workflow/scripts"
    profile, train, sample = (
        set(code_hashes(scripts / f"{name}.py")) for name in ("profile_latency", "train_supernet", "sample_architecture")
    )
    assert "fbnet/latency/profiling.py" in profile - train - sample
    assert "fbnet/search/supernet.py" in train - profile - sample
    assert "fbnet/space/operators.py" in profile & train & sample
    assert "fbnet/data/cifar10.py" not in train
    assert not any(name.endswith("__init__.py") for name in profile | train | sample)
