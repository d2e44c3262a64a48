"""The wheel where it is installed: with what measuring a device needs and nothing else, far from any checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT
from fbnet.latency import read_header, read_table
from fbnet.space import read_space


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves files in its source
    shutil.copytree(ROOT / "workflow/scripts", source / "workflow/scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], check=True, capture_output=True, timeout=300)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel; what it requires is linked from this one, as if pip had fetched it, and no more."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    [there] = folder.glob("lib/python*/site-packages")
    here = Path(sysconfig.get_path("purelib"))
    for name in required("fbnet-workflow", [line for line in metadata(there) if "extra ==" not in line]):
        for top in {file.parts[0] for file in distribution(name).files or [] if ".." not in file.parts}:
            if not (there / top).exists():
                (there / top).symlink_to(here / top)
    return folder


def metadata(site_packages: Path) -> list[str]:
    [path] = site_packages.glob("fbnet_workflow-*.dist-info/METADATA")
    return re.findall(r"^Requires-Dist: (.*)$", path.read_text(encoding="utf-8"), re.M)


def required(name: str, requirements: list[str], found: set | None = None) -> set[str]:
    """The names of all distributions that these requirements bring, as far as they are installed here."""
    found = set() if found is None else found
    for requirement in requirements:
        other = re.match(r"[\w.-]+", requirement)[0].lower()
        if other not in found and "extra ==" not in requirement:
            try:
                needs = distribution(other).requires or []
            except ModuleNotFoundError:  # for another system
                continue
            found.add(other)
            required(other, needs, found)
    return found


def call(environment, *command, cwd):
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program, *arguments = command
    line = [environment / "bin" / program, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=cwd, env=clean)


def test_a_device_is_measured_by_the_wheel_alone(environment, tmp_path):
    done = call(environment, "fbnet", "profile-latency", "--space", "tiny", "--runs", 3, "--out", "tiny.tsv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "tiny.tsv", read_space("tiny"), 10)
    assert 0 < table.least_us < table.most_us
    assert read_header(tmp_path / "tiny.tsv")["space"] == "tiny"
    assert len(pd.read_csv(tmp_path / "tiny.tsv", sep="\t", comment="#")) == len(read_space("tiny").cells(10))
    for absent in ("pandas", "scipy", "snakemake", "matplotlib", "onnx", "torchvision", "psutil"):
        assert call(environment, "python", "-c", f"import {absent}", cwd=tmp_path).returncode != 0, absent


def test_spaces_and_published_networks_are_there(environment, tmp_path):
    probe = "from fbnet.space import read_space, published; print(len(read_space('fbnet_cifar').layers), len(published()))"
    done = call(environment, "python", "-c", probe, cwd=tmp_path)
    assert done.stdout == "22 13\n", done.stderr
    described = call(environment, "fbnet", "describe-architecture", "--arch", "fbnet_c", cwd=tmp_path)
    assert described.returncode == 0, described.stderr
    assert "384,960,160" in described.stdout


@pytest.mark.parametrize(("command", "missing"), [("train-supernet", "psutil"), ("validate-latency", "scipy")])
def test_what_is_missing_for_a_command_is_told(environment, tmp_path, command, missing):
    done = call(environment, "fbnet", command, "--help", cwd=tmp_path)
    assert done.returncode == 1
    assert f"needs {missing}, which is not here: install fbnet-workflow with its extra [workflow]" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_missing_for_an_engine_is_told(environment, tmp_path):
    done = call(environment, "fbnet", "profile-latency", "--space", "tiny", "--engine", "onnxruntime", "--out", "x", cwd=tmp_path)
    assert done.returncode == 1
    assert "profile_latency: onnxruntime is not here: install it" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_script_is_a_command(environment, tmp_path):
    listed = call(environment, "fbnet", "--help", cwd=tmp_path)
    assert listed.returncode == 0
    scripts = {path.stem.replace("_", "-") for path in (ROOT / "workflow/scripts").glob("*.py")}
    assert set(re.findall(r"^  ([\w-]+)", listed.stdout, re.M)) == scripts
    wrong = call(environment, "fbnet", "profile", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "there is no command 'profile'" in wrong.stderr


def test_in_a_checkout_the_commands_are_its_scripts():
    folder = ROOT / "workflow/scripts"
    done = subprocess.run([sys.executable, "-m", "fbnet"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert "profile-latency" in done.stdout


FAKE = """#!/bin/sh
test "$1" = -c || exit 7  # from here on there would be an environment
exec {python} -c "import platform, sys; {fake}; $2"
"""


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (
            "platform.system, platform.machine = lambda: 'Darwin', lambda: 'x86_64'",
            "no longer made for Macs with Intel processors",
        ),
        ("platform.system, platform.machine = lambda: 'Darwin', lambda: 'arm64'", ""),
        ("sys.version_info, sys.version = (3, 10, 4), '3.10.4 (main)'", "Python 3.11 or newer is needed .* found 3.10.4. Name"),
    ],
    ids=["Intel Mac", "Apple Mac", "old Python"],
)
def test_where_nothing_can_be_installed_a_sentence_says_so(tmp_path, fake, said):
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(FAKE.format(python=sys.executable, fake=fake), encoding="utf-8")
    python.chmod(0o755)
    done = subprocess.run(["make", "install", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert ("Error 7" in done.stderr) == (not said), done.stderr
    assert re.search(said, done.stderr)
    assert "Traceback" not in done.stderr
