import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; threads of torch would fight for the cores

import fcntl
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from fbnet.data.digits import prepare_digits
from fbnet.errors import InputError
from fbnet.latency import read_table
from fbnet.latency.table import COLUMNS, KEY
from fbnet.space import read_space

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
SPACES = ROOT / "workflow/scripts/fbnet/space/spaces"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared reference data is not here")

TINY = {
    "results": "results",
    "dataset": {"name": "digits"},
    "space": "tiny",
    "latency": {"cpu": {"runs": 3}},
    "search": {
        "epochs": 2,
        "warmup_epochs": 1,
        "batch_size": 64,
        "augment": {"crop_padding": 1, "flip": False},
    },
    "searches": {"first": {}},
    "sample": {"method": "softmax", "count": 4},
    "train": {"epochs": 3, "warmup_epochs": 2, "batch_size": 64, "validation_share": 0.2, "lr": 0.05, "gpu": 0},
    "evaluation": {"trainings": 2, "random": 2, "rules": ["macs"], "ranked": 5, "runs": 3},
    "threads": 1,
    "validation": {"networks": 4, "runs": 3},
}

ELASTIC = {  # whose stages list channels
    "name": "elastic",
    "base": "tiny",
    "stages": [
        {"layers": 1, "channels": [8, 16], "stride": 1},
        {"layers": 2, "channels": [24, 16], "stride": 2},
        {"layers": 1, "channels": [16, 24], "stride": 1},
    ],
}

BUDGET = {"latency_budget": "2s"}  # none is slower


def with_settings(**changes):
    config = yaml.safe_load(yaml.safe_dump(TINY))
    for keys, value in changes.items():
        *parents, last = keys.split("__")
        part = config
        for key in parents:
            part = part.setdefault(key, {})
        part[last] = value
    return config


def write_table(
    path: Path, space, classes: int = 10, latency_us=lambda cell: 10.0 * cell.c_out, change=lambda rows: rows
) -> Path:
    """A latency table for every cell of a space, made up."""
    rows = [[*(getattr(cell, column) for column in KEY), latency_us(cell), 1.0, 9] for cell in space.cells(classes)]
    lines = ["# made up", "\t".join(COLUMNS), *("\t".join(map(str, row)) for row in change(rows))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


JUNK = ["", "nan", "inf", "-1", "1e999", "0x10", "True", "1,5", "; touch x", "\0", "µ", '"', "\u2028", "9" * 5000]


@st.composite
def mutated(draw, text: str) -> bytes:
    """A TSV with one to three faults, as a person or a disk makes them."""
    lines = [line.split("\t") for line in text.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(lines) - 1))
        column = draw(st.integers(0, len(lines[number]) - 1))
        match draw(st.sampled_from(["cell", "no cell", "no line", "twice", "line", "no column", "order"])):
            case "cell":
                lines[number][column] = draw(st.sampled_from(JUNK))
            case "no cell" if len(lines[number]) > 1:
                del lines[number][column]
            case "no line" if len(lines) > 1:
                del lines[number]
            case "twice":
                lines.append(lines[number])
            case "line":
                lines.insert(number, [draw(st.sampled_from(JUNK))])
            case "no column":
                lines = [line[:column] + line[column + 1 :] or [""] for line in lines]
            case "order":
                lines[number] = lines[number][::-1]
    content = "\n".join(map("\t".join, lines)).encode()
    match draw(st.sampled_from(["whole", "whole", "cut", "byte"])):
        case "cut":
            return content[: draw(st.integers(0, len(content)))]
        case "byte" if content:
            place = draw(st.integers(0, len(content) - 1))
            return content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]
    return content


def read_or_refused(path: Path, read):
    """What `read` gives, or None if it refuses the file, as it must: in one line that names it."""
    try:
        return read()
    except InputError as error:
        sentence = str(error)
    assert path.name in sentence
    assert len(sentence.splitlines()) == 1
    return None


def pytest_configure(config):
    """Tests that are not of a GPU have none: else programs that they start would compute there."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


ONE_WORKER = {  # what takes long to make, and is made once, by the one worker that runs all its tests
    "evaluated": ("evaluated_workflow", "copy_of_evaluated", "race"),
    "workflow": ("finished_workflow", "copy_of_finished"),
    "trained": ("trained",),
    "installed": ("environment",),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that share something go to one worker. Whole workflows come first, being the longest, a part on each of two."""

    def uses(item, *fixtures):
        return bool({*fixtures} & {*item.fixturenames})

    items.sort(key=lambda item: uses(item, "workflow"), reverse=True)
    items.sort(key=lambda item: uses(item, *ONE_WORKER["evaluated"], *ONE_WORKER["workflow"]), reverse=True)
    for item in items:
        for group in [group for group, fixtures in ONE_WORKER.items() if uses(item, *fixtures)][:1]:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tiny():
    return read_space(SPACES / "tiny.yaml")


@pytest.fixture(scope="session")
def elastic():
    return read_space(ELASTIC)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare_digits(folder, 16)
    return folder


@pytest.fixture
def tiny_table(tiny, tmp_path):
    return read_table(write_table(tmp_path / "table.tsv", tiny), tiny, 10)


@pytest.fixture
def script():
    """Run one of the scripts as a user does: script("train_supernet", "--out", folder, ...)."""

    def call(name, *arguments, **options):
        command = [sys.executable, ROOT / "workflow/scripts" / f"{name}.py", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)

    return call


def with_plugin(name: str) -> dict[str, str]:
    """The environment in which Snakemake finds a plugin for clusters, which would make each of its starts elsewhere slower."""
    folder = Path(sys.prefix) / name
    if not folder.is_dir():
        pytest.skip("make test-slurm installs the plugins")
    return os.environ | {"PYTHONPATH": str(folder)}


def wait_for(condition, process=None):
    """Return as soon as a condition is true, and what it then is; a process must run until then."""
    deadline = time.monotonic() + 600
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        assert process is None or process.poll() is None, "the process has ended before"
        time.sleep(0.1)
    return found


class Workflow:
    """A copy of the workflow in a folder of its own, run as a user runs it."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("Snakefile", "config.yaml", "workflow", "profiles"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
            else:
                shutil.copy2(ROOT / name, folder / name)
        self.configure(TINY)

    def configure(self, config: dict) -> None:
        """Replace the copy's config.yaml."""
        self.config = config
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def command(self, *arguments) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)]

    def __call__(self, *arguments, **options):
        """Run snakemake, and return the finished process."""
        options = {"cwd": self.folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "timeout": 600} | options
        return subprocess.run(self.command(*arguments), text=True, **options)

    def start(self, *arguments, **options):
        """Start snakemake, and return the process that runs; what it says goes to the file output.txt."""
        with open(self.folder / "output.txt", "w", encoding="utf-8") as file:
            options |= {"cwd": self.folder, "stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True}
            return subprocess.Popen(self.command(*arguments), **options)

    def jobs(self, *arguments) -> list[tuple[str, dict[str, str]]]:
        """What a dry run would run, `all` aside: the rule and the wildcards of each job."""
        dry = self("--dry-run", *arguments)
        assert dry.returncode == 0, dry.stdout
        jobs: list[tuple[str, dict[str, str]]] = []
        for line in map(str.strip, dry.stdout.splitlines()):  # those of a group are indented
            if line.startswith(("rule ", "localrule ")):
                jobs.append((line.split()[1].rstrip(":"), {}))
            elif line.startswith("wildcards: "):
                jobs[-1][1].update(pair.split("=") for pair in line.removeprefix("wildcards: ").split(", "))
        return [job for job in jobs if job[0] != "all"]

    def planned(self, *arguments) -> set[str]:
        """The rules that a dry run would run, `all` aside."""
        return {rule for rule, _ in self.jobs(*arguments)}


@pytest.fixture(scope="session")
def finished_workflow(tmp_path_factory):
    """A workflow that has run to its end; tests copy it. Whichever worker needs it first makes it, for all."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "finished"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (said := folder / "said.txt").exists():
            done = Workflow(folder / "workflow")()
            assert done.returncode == 0, done.stdout
            said.write_text(done.stdout, encoding="utf-8")
    workflow = existing(folder / "workflow", TINY)
    workflow.output = said.read_text(encoding="utf-8")
    return workflow


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path / "workflow")


def existing(folder: Path, config: dict) -> Workflow:
    """The workflow that is in a folder."""
    workflow = Workflow.__new__(Workflow)
    workflow.folder, workflow.config = folder, config
    return workflow


def copied(workflow: Workflow, folder: Path) -> Workflow:
    shutil.copytree(workflow.folder, folder)
    return existing(folder, workflow.config)


@pytest.fixture
def copy_of_finished(finished_workflow, tmp_path):
    return copied(finished_workflow, tmp_path / "copy")


@pytest.fixture(scope="session")
def evaluated_workflow(finished_workflow, tmp_path_factory):
    """The same with its evidence within a latency budget, and the trained network exported; tests copy it."""
    workflow = copied(finished_workflow, tmp_path_factory.mktemp("evaluated") / "workflow")
    workflow.configure(with_settings(searches={"first": BUDGET}))
    done = workflow("make_report", "results/trained/first.onnx")
    assert done.returncode == 0, done.stdout
    workflow.output = done.stdout
    return workflow


@pytest.fixture
def copy_of_evaluated(evaluated_workflow, tmp_path):
    return copied(evaluated_workflow, tmp_path / "evaluated")
