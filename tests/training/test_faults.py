"""What goes wrong around a run on one machine: what the user sees, and that nothing is lost. Those of clusters: test_slurm."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pandas as pd
import psutil
import pytest
import yaml

from conftest import ROOT, TINY, Workflow, wait_for, with_settings
from fbnet.exclusive import alone
from fbnet.runtime import StopRequest


@contextmanager
def mounted(folder, *options):
    """A file system of its own at a folder: `mount OPTIONS FOLDER`."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_told_and_the_next_call_goes_on(workflow):
    results = workflow.folder / "results"
    with mounted(results, "-t", "tmpfs", "-o", "size=700k", "tmpfs"):  # the images alone take more
        failed = workflow("results/data/digits/dataset.json")
        assert failed.returncode != 0
        assert "No space left on device" in failed.stdout
        assert "Traceback" not in failed.stdout
        subprocess.run(["mount", "-o", "remount,size=100m", results], check=True)
        done = workflow("results/data/digits/dataset.json")
        assert done.returncode == 0, done.stdout
        assert not list(results.rglob(".*.npy.*"))  # nothing half-written is left


def test_a_disk_that_fills_in_training_is_told_and_the_next_call_goes_on(copy_of_finished):
    workflow, folder = copy_of_finished, copy_of_finished.folder / "results/search/first"
    (folder / "supernet.pt").unlink()
    workflow.configure(with_settings(search__epochs=4))
    with mounted(folder, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        subprocess.run(["dd", "if=/dev/zero", f"of={folder}/other", "bs=1k", "count=1960"], check=True, capture_output=True)
        failed = workflow("results/search/first/supernet.pt")
        assert failed.returncode != 0
        assert "No space left on device" in failed.stdout
        assert "Traceback" not in failed.stdout
        (folder / "other").unlink()
        done = workflow("results/search/first/supernet.pt")
        assert done.returncode == 0, done.stdout
        assert pd.read_csv(folder / "theta.tsv", sep="\t").epoch.max() == 3


def test_results_that_cannot_be_written_are_told(copy_of_finished):
    results = copy_of_finished.folder / "results"
    copy_of_finished.configure(with_settings(sample__count=5))
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    with mounted(results, "--bind", results):
        subprocess.run(["mount", "-o", "remount,ro,bind", results], check=True)
        failed = copy_of_finished()
        assert failed.returncode != 0
        assert "Write-protected output files" in failed.stdout
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == before
    done = copy_of_finished("results/architectures/first.tsv")
    assert done.returncode == 0, done.stdout


def test_a_second_snakemake_is_refused_and_after_a_kill_the_next_call_goes_on(copy_of_finished):
    workflow, trained = copy_of_finished, "results/search/first/history.tsv"
    workflow.configure(with_settings(search__epochs=40))  # which take longer than a second Snakemake takes to start
    first = workflow.start(trained)
    checkpoint = workflow.folder / "results/search/first/checkpoint.pt"
    wait_for(checkpoint.exists, first)
    second = workflow(trained)
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stdout
    assert "Traceback" not in second.stdout
    os.killpg(first.pid, signal.SIGKILL)  # Snakemake and the training
    first.wait()
    assert workflow("--unlock").returncode == 0
    done = workflow(trained)
    assert done.returncode == 0, done.stdout
    assert "Resuming in epoch" in done.stdout
    history = pd.read_csv(workflow.folder / trained, sep="\t")
    assert sorted(history.epoch.unique()) == list(range(40))
    assert not checkpoint.exists()


def test_a_warning_that_comes_while_a_training_starts_is_not_lost(copy_of_finished):
    """SLURM's USR1 reaches all processes of a job; the training imports PyTorch for seconds before it can hear."""
    workflow = copy_of_finished
    workflow.configure(with_settings(search__epochs=3))
    snakemake = workflow.start("results/search/first/history.tsv")

    def processes():
        running = psutil.Process(snakemake.pid).children(recursive=True)
        return running if any("train_supernet.py" in "".join(process.cmdline()[1:2]) for process in running) else []

    for process in [*wait_for(processes, snakemake), snakemake]:
        process.send_signal(signal.SIGUSR1)
    assert snakemake.wait(300) == 0
    said = (workflow.folder / "output.txt").read_text(encoding="utf-8")
    assert "Stopped by SIGUSR1" in said
    assert "Resuming in epoch 1/3" in said


def test_a_clock_that_was_wrong_reruns_nothing(copy_of_finished):
    results, day = copy_of_finished.folder / "results", 24 * 3600
    for path, offset in (("architectures/first.tsv", -day), ("latency/cpu.tsv", +day), ("search/first/supernet.pt", -365 * day)):
        moved = time.time() + offset
        os.utime(results / path, (moved, moved))
    assert copy_of_finished.planned() == set()


def test_files_are_for_all_to_read_and_for_their_owner_to_write(finished_workflow):
    results = finished_workflow.folder / "results"
    assert not [path for path in results.rglob("*") if path.stat().st_mode & 0o022]


def test_one_at_a_time_in_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fbnet.exclusive import alone; from fbnet.runtime import StopRequest\n"
        "with StopRequest() as stop, alone(Path(sys.argv[1]), stop) as waited: print(waited, flush=True)"
    )
    options = {"env": os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}, "text": True}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with StopRequest() as stop:
        with alone(tmp_path, stop) as waited:
            assert not waited
            others = [subprocess.Popen([sys.executable, "-c", code, tmp_path], **options) for _ in range(2)]
            for other in others:
                assert "is in use (process" in other.stderr.readline()
            others[0].send_signal(signal.SIGTERM)  # whoever waits can be stopped
            assert others[0].wait(30) != 0
            assert others[1].poll() is None
        assert others[1].communicate(timeout=30)[0] == "True\n"


def test_as_a_module_of_another_workflow(tmp_path):
    """With a configuration and a folder of its own, and no say in what the other's rules run."""
    outer = tmp_path / "outer project"
    outer.mkdir()
    library = Workflow(tmp_path / "library").folder
    config = TINY | {"sample": {"method": "argmax", "count": 1}, "latency": {"cpu": {"engine": "analytic"}}}
    (outer / "Snakefile").write_text(
        f"""
import yaml

module fbnet:
    snakefile: {str(library / "Snakefile")!r}
    config: yaml.safe_load({yaml.safe_dump(config)!r})
    prefix: "for phone"

use rule * from fbnet as fbnet_*

rule everything:
    default_target: True
    input: "for phone/results/modeldef/first.py"
    output: "environment.txt"
    shell: "env > {{output}}"
""",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    options = {"cwd": outer, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 300}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stdout
    assert (outer / "for phone/results/modeldef/first.py").exists()
    assert not (outer / "results").exists()
    assert str(library) not in (outer / "environment.txt").read_text(encoding="utf-8")
    assert "Nothing to be done" in subprocess.run(command, **options).stdout


def test_one_installation_that_is_only_read_serves_from_any_folder(tmp_path):
    """With its own config.yaml, unless the folder has one; what is made stands in the folder."""
    installed, place = Workflow(tmp_path / "installed"), tmp_path / "place"
    place.mkdir()
    call = ("--snakefile", installed.folder / "Snakefile", "results/data/digits/dataset.json")
    with mounted(installed.folder, "--bind", installed.folder):
        subprocess.run(["mount", "-o", "remount,ro,bind", installed.folder], check=True)
        done = installed(*call, cwd=place)
        assert done.returncode == 0, done.stdout
        assert (place / "results/data/digits/dataset.json").exists()
        (place / "config.yaml").write_text("results: other\n", encoding="utf-8")
        dry = installed(*call[:2], "--dry-run", cwd=place).stdout
        assert "other/data/cifar10/dataset.json" in dry
