"""The documents: every command, link and snippet in them, as it stands there.

Commands run in a copy of the checkout where something like a finished run lies. What takes long is run dry (snakemake, make,
benchmarks), and what lies outside is stood in for (pip, ssh, scp, the device that ssh reaches).
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import onnx
import pages
import pytest
import torch
import yaml

from conftest import ROOT, write_table
from fbnet.config import check_yaml, resolve
from fbnet.space import read_space
from fbnet.space.modeldef import entry, render

pytestmark = pytest.mark.xdist_group("documents")  # who asks benchmarks for help does so for all
DOCUMENTS = ["README.md", "CHANGELOG.md", "NOTICE.md", "profiles/README.md", "benchmarks/README.md"]
DOCUMENTS += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.stem != "index")
PROGRAMS = ("make", "snakemake", "python", "pip", "tail", "tensorboard", "fbnet", "ssh", "scp", ".")
ELSEWHERE = {  # what needs a finished run, and the test that has one
    "snakemake make_report --cores 8 --report report.zip": ("test_workflow.py", 'workflow("make_report", "--report"'),
}
STAND_INS = {
    "snakemake": """
        case " $* " in *" --cores "*|*" -n "*) ;; *) echo "only a dry run does without --cores"; exit 3 ;; esac
        case " $* " in *" --unlock "*|*" --touch "*) ;; *) set -- "$@" --dry-run ;; esac
        ran="{folder}/ran $(echo "$*" | tr / _)"  # once is enough: places are alike
        [ -e "$ran" ] || {python} -m snakemake "$@"
        touch "$ran" """,
    "make": 'exec {make} --dry-run "$@"',
    "python": """
        case "$1" in
            benchmarks/*) for word in "$@"; do case "$word" in --*) grep -q -e "$word" {folder}/help/"$1" ;; esac; done ;;
            tests/cluster.py) shift; exec "$@" ;;
            *) exec {python} "$@" ;;
        esac""",
    "pip": """
        [ "$1" = install ]; shift
        for word in "$@"; do case "$word" in -*) ;; *) test -e "${{word%%[*}}" ;; esac; done""",
    "tail": '[ "$1" = -f ]; exec {tail} "$2"',
    "tensorboard": '[ "$1" = --logdir ]; test -d "$2"',
    "fbnet": 'exec {python} -m fbnet "$@"',
    "scp": 'exec cp "${{@/#pi:/pi/}}"',
    "ssh": '[ "$1" = pi ]; cd pi; exec bash -ec "$2"',
    # The device's own: it has one core, and what it measures is as small as can be.
    "python3": '[ "$1 $2" = "-m venv" ]; mkdir -p "$3/bin"; cp {folder}/pip "$3/bin/"; cp {folder}/on_device "$3/bin/fbnet"',
    "on_device": """
        [ "$1" = profile-latency ] || set -- "$@" --networks 2
        exec {folder}/fbnet "$@" --space tiny --runs 1 --threads 1""",
}


def fences(text: str, *languages: str) -> list[str]:
    """The fenced blocks of a document in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [body for language, body in found if language in languages]


def commands(text: str) -> list[str]:
    """What a user may copy: whole blocks, and the commands within lines."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    inline = [code for code in re.findall(r"`([^`]+)`", prose) if code.split()[0] in PROGRAMS and " " in code]
    return [*fences(text, "sh"), *(code for code in inline if code != "ssh pi")]


def sections(document: str) -> dict[str, str]:
    """The parts of a document that have commands; those of the benchmarks, which share what they start with, as one."""
    if document.startswith("benchmarks/"):
        return {document: (ROOT / document).read_text(encoding="utf-8")}
    parts = re.split(r"^## (.*)$", (ROOT / document).read_text(encoding="utf-8"), flags=re.M)
    return {
        f"{document}: {title}": body for title, body in zip(["start", *parts[1::2]], parts[::2], strict=True) if commands(body)
    }


SECTIONS = {name: body for document in DOCUMENTS for name, body in sections(document).items()}


HELP = """
import contextlib, io, pathlib, runpy, sys
sys.path.insert(0, "benchmarks")
for path in sys.argv[1:]:
    sys.argv, said = [path, "--help"], io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_path(path, run_name="__main__")
    assert "usage:" in said.getvalue(), path
    out = pathlib.Path(folder, path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(said.getvalue(), encoding="utf-8")
"""


@pytest.fixture(scope="module")
def help_of_benchmarks(stand_ins):
    """What each benchmark says of its options, asked in one process."""
    named = sorted(set(re.findall(r"benchmarks/\w+\.py", (ROOT / "benchmarks/README.md").read_text(encoding="utf-8"))))
    program = f"folder = {str(stand_ins / 'help')!r}\n{HELP}"
    subprocess.run([sys.executable, "-c", program, *named], cwd=ROOT, check=True, timeout=300)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    known = {"python": sys.executable, "make": shutil.which("make"), "tail": shutil.which("tail")}
    known |= {"folder": folder}
    for name, text in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/bash\nset -e\n{textwrap.dedent(text).format(**known)}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def place(tmp_path):
    """A checkout with the files of a run that is finished, as far as a command reads them."""
    for name in ("Snakefile", "Makefile", "config.yaml", "pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("workflow", "profiles", "examples", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/cluster.py", tmp_path / "tests")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    for name in ("latency/cpu", "architectures", "search/fbnet/tensorboard", "logs/train_supernet", "models"):
        (tmp_path / "results" / name).mkdir(parents=True)
    (tmp_path / "pi").mkdir()
    (tmp_path / "dist").mkdir()
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]
    (tmp_path / f"dist/fbnet_workflow-{version}-py3-none-any.whl").touch()
    results, space = tmp_path / "results", read_space("fbnet_cifar")
    for name in ("cpu.tsv", "cpu/accepted.tsv", "cpu/before.tsv"):
        write_table(results / "latency" / name, space)
    ops = ["ir_k3_e1", *["skip"] * 21]
    ops = [op if op in {cell.op for cell in layer} else layer[0].op for op, layer in zip(ops, space.layers, strict=True)]
    (results / "architectures/fbnet.tsv").write_text(f"name\tops\nfbnet\t{' '.join(ops)}\n", encoding="utf-8")
    supernet = {"weights": {}, "theta": [], "space": space.definition, "classes": [str(number) for number in range(10)]}
    torch.save(supernet, results / "search/fbnet/supernet.pt")
    (results / "logs/train_supernet/fbnet.log").write_text("epoch 1/90\n", encoding="utf-8")
    (tmp_path / "fbnet_modeldef.py").write_text(render({"mine": entry(space, ops)}), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("section", SECTIONS)
def test_every_command_runs(section, place, stand_ins, request):
    if "python benchmarks/" in SECTIONS[section]:
        request.getfixturevalue("help_of_benchmarks")
    path = f"{stand_ins}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(place / "workflow/scripts")}
    for command in commands(SECTIONS[section]):
        if command in ELSEWHERE:
            file, call = ELSEWHERE[command]
            assert call in (ROOT / "tests" / file).read_text(encoding="utf-8")
            continue
        # The plugins of clusters are not here: tests/test_profiles.py.
        command = re.sub(r"snakemake --workflow-profile (profiles/\S+)", r"test -d \1 &&: snakemake", command)
        done = subprocess.run(["bash", "-ec", command], cwd=place, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for link in (one or other for one, other in links):
        if re.match(r"https://[\w.-]+(/\S*)?$", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        target = target / "README.md" if target.is_dir() else target
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def anchors(text: str) -> set[str]:
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_what_it_is(document):
    """Only what is fenced and named is run, so nothing else may look like code."""
    text = (ROOT / document).read_text(encoding="utf-8")
    languages = set(re.findall(r"^```(\w*)\n.*?^```", text, re.M | re.S))
    assert languages <= {"sh", "python", "snakemake", "yaml", "text", "mermaid", "dockerfile"}
    assert not re.findall(r"^    \S.*", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_snippet_is_valid(document, place, monkeypatch):
    text = (ROOT / document).read_text(encoding="utf-8")
    monkeypatch.chdir(place)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> model (float[N, 3, 32, 32] images) => (float[N, M] logits) '
        "{ logits = Flatten(images) }"
    )
    onnx.save(model, "results/models/fbnet.onnx")
    for snippet in fences(text, "python"):
        exec(compile(snippet, document, "exec"), {"images": torch.zeros(2, 3, 32, 32).numpy()})
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
    for snippet in fences(text, "yaml"):
        Path("snippet.yaml").write_text(snippet, encoding="utf-8")
        check_yaml("snippet.yaml")
        settings = yaml.safe_load(snippet)
        if "base" in settings:
            read_space("snippet.yaml")
        else:
            first = next(iter(settings.get("latency", {"cpu": {}})))
            resolve({"searches": {"fbnet": {}}, "search": {"target": first}} | settings, schema)


@pytest.mark.parametrize("path", pages.PAGES)
def test_what_is_generated_is_up_to_date(path):
    assert (ROOT / path).read_text(encoding="utf-8") == pages.PAGES[path](), "python docs/pages.py"


def test_the_site_builds_without_a_warning(tmp_path):
    """Which holds links between pages and their headings, also those of the pages that are found by nobody."""
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs"]
    command = [sys.executable, "-m", "sphinx", *options, ".", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    built = {
        path.relative_to(tmp_path).with_suffix(".md").as_posix(): path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*.html")
    }
    assert {*DOCUMENTS} <= {*built}
    assert not [path for path, text in built.items() if re.search(r'(src|href)="https?://[^"]+\.(js|css)"', text)]  # offline


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


PROSE = [*DOCUMENTS, "config.yaml", "Makefile", *(f"examples/{path.name}" for path in (ROOT / "examples").glob("*.yaml"))]


@pytest.mark.parametrize("document", PROSE)
def test_every_path_that_is_named_is_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w/.{}-])(?:workflow|tests|benchmarks|profiles|examples|docs)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
