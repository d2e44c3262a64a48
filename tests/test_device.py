"""GPUs: what PyTorch cannot use is said before anything runs, which one a job takes, and what a table says of it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conftest import ROOT, write_table
from fbnet.device import choose_device, has_code_for, hides_all, nvidia_driver, nvidia_smi, take, take_gpus, usable_gpus, why_none
from fbnet.errors import InputError
from fbnet.latency import Target
from fbnet.latency.machine import Watch, check_same, cpu_model, describe, take_device
from fbnet.latency.table import tsv
from recipes import SETTINGS, train

BUILD = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_90"]
OLD, AMPERE, HOPPER = ("Old GPU", (6, 1)), ("Ampere GPU", (8, 0)), ("Hopper GPU", (9, 0))
CUDA = Target(device="cuda")


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """What PyTorch would find on a machine with these GPUs, [name, compute capability] of each; the current one is in [0]."""

    def there(*found, built_for=BUILD):
        current = [0]

        def of(value):
            return lambda index=None: value(current[0] if index is None else index)

        values = {
            "is_available": lambda: bool(found),
            "device_count": lambda: len(found),
            "current_device": lambda: current[0],
            "set_device": lambda index: current.__setitem__(0, index),
            "get_arch_list": lambda: built_for,
            "get_device_name": of(lambda index: found[index][0]),
            "get_device_capability": of(lambda index: found[index][1]),
            "get_device_properties": of(lambda index: SimpleNamespace(uuid=f"0000-{index}")),
        }
        for name, value in values.items():
            monkeypatch.setattr(torch.cuda, name, value)
        return current

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the locks are
    return there


def stand_in(folder, script):
    """A PATH on which nvidia-smi is this shell script."""
    program = folder / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_86"], False),
        ((9, 0), ["sm_80", "compute_80"], True),
        ((7, 5), ["compute_80"], False),
        ((10, 3), ["sm_100"], True),
        ((12, 0), ["sm_100"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a", "compute_100a"], False),
        ((10, 3), ["sm_100f"], True),
        ((12, 0), ["compute_100f"], False),
        ((6, 1), ["sm_75", "sm_120"], False),
        ((6, 1), [], True),
    ],
)
def test_which_code_runs_on_which_gpu(capability, built_for, runs):
    assert has_code_for(capability, built_for) == runs


@pytest.mark.parametrize(
    ("visible", "hides"),
    [(None, False), ("", True), ("-1", True), ("NoDevFiles", True), ("0", False), ("1,2", False), ("GPU-8932f937", False)],
)
def test_which_values_hide_all_gpus(visible, hides):
    assert hides_all(visible) == hides


@pytest.mark.parametrize(
    ("cuda", "driver", "visible", "parts"),
    [
        (None, "580.65.06", None, ["PyTorch was built without CUDA: install a build for CUDA"]),
        ("13.2", "570.86.15", None, ["driver 570.86.15 is too old", "CUDA 13.2", "needs 580", "a build of PyTorch for CUDA 12"]),
        ("12.8", "470.57.02", None, ["driver 470.57.02 is too old", "CUDA 12.8", "needs 525", "install a newer driver"]),
        ("12.8", "525.60.13", None, ["with driver 525.60.13 and says 'initialization error'", "torch.cuda.init()"]),
        ("13.0", "of an unknown version", None, ["with driver of an unknown version and says"]),
        ("14.0", "580.65.06", None, ["with driver 580.65.06 and says"]),
        ("13.2", "580.65.06", "7", ["(CUDA_VISIBLE_DEVICES is '7')"]),
    ],
)
def test_causes_are_told_apart(cuda, driver, visible, parts):
    told = why_none(cuda, driver, "initialization error", visible)
    assert all(part in told for part in parts), told
    assert ("for CUDA 12" in told) == (driver == "570.86.15")


def test_which_gpu_is_there(tmp_path, monkeypatch):
    """In /proc stand the host's, also in a container or job that may not open them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_driver(tmp_path) is None
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    version = tmp_path / "proc/driver/nvidia/version"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version: 12.3.0", encoding="utf-8"
    )
    assert nvidia_driver(tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert nvidia_driver(tmp_path) == "570.86.15"
    version.write_text("?", encoding="utf-8")
    assert "unknown" in nvidia_driver(tmp_path)


@pytest.mark.parametrize(
    "script",
    [
        "echo 'No devices were found'; exit 6",
        "echo 'No devices were found'",
        "echo 'NVIDIA-SMI has failed'; exit 9",
        "kill -9 $$",
    ],
)
def test_where_nvidia_smi_finds_nothing_there_is_no_gpu(gpus, tmp_path, monkeypatch, script):
    gpus()
    monkeypatch.setenv("PATH", stand_in(tmp_path, script))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert nvidia_driver(tmp_path) is None
    with pytest.raises(InputError, match="device is 'cuda', but PyTorch finds no GPU here: choose device 'cpu'"):
        take_device(CUDA)


def test_a_gpu_that_pytorch_does_not_find_is_an_error_unless_it_is_hidden(gpus, tmp_path, monkeypatch):
    gpus()
    monkeypatch.setenv("PATH", stand_in(tmp_path, "echo 470.57.02; echo 470.57.02"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for job in (usable_gpus, lambda: choose_device(1), lambda: take_gpus(1), lambda: take_device(CUDA)):
        with pytest.raises(InputError, match=r"there is an NVIDIA GPU here, but .*or compute on the CPU \(gpu: 0"):
            job()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert usable_gpus() == []


def test_a_gpu_without_code_is_left_aside_and_one_alone_is_an_error(gpus, caplog):
    gpus(OLD, AMPERE, OLD)
    assert usable_gpus() == [1]
    with caplog.at_level("WARNING"):
        assert [gpu.index for gpu in take_gpus(1)] == [1]
    assert "GPU 0, Old GPU, is left aside: its compute capability is 6.1" in caplog.text
    assert "GPU 2, Old GPU" in caplog.text
    with pytest.raises(InputError, match="gpu is 2, but PyTorch can use only 1 here"):
        take_gpus(2)
    gpus(OLD)
    with pytest.raises(InputError, match=r"Old GPU: .*is 6\.1, .*has code for 7\.5, 8\.0, 8\.6, 9\.0 only.* older CUDA"):
        choose_device(1)
    gpus(("New GPU", (12, 0)), built_for=["sm_80", "sm_90"])
    with pytest.raises(InputError, match=r"New GPU: .*install a newer PyTorch .*or compute on the CPU"):
        usable_gpus()


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch finds the GPU")
def test_no_job_starts_on_the_cpu_beside_a_gpu_that_pytorch_cannot_use(digits, tiny, tmp_path, script):
    environment = os.environ | {"PATH": stand_in(tmp_path, "echo 470.57.02")}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    table, out, cause = write_table(tmp_path / "table.tsv", tiny), tmp_path / "search", "its driver 470.57.02 is too old"
    call = {"capture_output": True, "text": True, "timeout": 300, "env": environment}
    refused = subprocess.run(train(digits, table, out), **call)
    measured = script("profile_latency", "--space", "tiny", "--device", "cuda", "--out", tmp_path / "gpu.tsv", env=environment)
    for done in (refused, measured):
        assert done.returncode == 1, done.stderr
        assert (cause if torch.version.cuda else "built without CUDA") in done.stderr
        assert "Traceback" not in done.stderr
    assert not (out / "supernet.pt").exists()
    trained = subprocess.run(train(digits, table, out, SETTINGS | {"gpu": 0, "epochs": 2}), **call)
    assert trained.returncode == 0, trained.stderr
    assert (out / "supernet.pt").exists()


def header_of(path, about):
    path.write_text(tsv([], ["layer"], about), encoding="utf-8")
    return path


def test_a_measurement_takes_a_free_gpu_of_the_tables_model(gpus, tmp_path, caplog):
    current = gpus(AMPERE, HOPPER, HOPPER)
    table = header_of(tmp_path / "table.tsv", {"machine": "Hopper GPU"})
    with caplog.at_level("INFO"):
        assert take_device(CUDA, table)["gpu"] == "GPU-0000-1"
    assert "Measuring on the GPU Hopper GPU (GPU-0000-1)" in caplog.text
    assert current == [1]
    assert take_device(CUDA, table)["gpu"] == "GPU-0000-2"  # the first is taken as long as this process lives
    assert take_device(CUDA)["machine"] == "Ampere GPU"
    with pytest.raises(InputError, match=r"old\.tsv was measured on Old GPU \(unknown host\), but this is Ampere GPU"):
        take_device(CUDA, header_of(tmp_path / "old.tsv", {"machine": "Old GPU"}))  # at once, although no GPU is free


def test_a_gpu_table_says_what_its_numbers_depend_on(gpus, tmp_path, monkeypatch):
    gpus(AMPERE)
    monkeypatch.setenv("PATH", stand_in(tmp_path, "echo 580.65.06"))
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92600)
    about = describe(CUDA)
    assert about["machine"] == "Ampere GPU"
    assert about["driver"] == "580.65.06"
    assert about["processor"] == cpu_model()
    assert "cuda 13.2, cudnn 92600" in about["versions"]
    assert about["tf32"] == "convolutions yes, matrix products no"  # PyTorch's defaults
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert describe(CUDA)["tf32"] == "convolutions no, matrix products no"
    gpus(("Turing GPU", (7, 5)))
    assert describe(CUDA)["tf32"] == "convolutions no, matrix products no"
    assert "tf32" not in describe(Target(device="cuda", dtype="bfloat16"))
    assert not {"gpu", "driver", "processor", "tf32"} & {*describe(Target())}
    assert "cuda" not in describe(Target())["versions"]


def test_another_processor_launches_kernels_at_another_speed(gpus, tmp_path):
    gpus(AMPERE)
    for mode in ("eager", "compile"):
        about = describe(Target(device="cuda", mode=mode))
        check_same(header_of(tmp_path / "same.tsv", about), about)
        with pytest.raises(InputError, match=r"other\.tsv was measured where the processor is a chip .*mode 'graphs'"):
            check_same(header_of(tmp_path / "other.tsv", about | {"processor": "a chip", "host": "far"}), about)
        check_same(header_of(tmp_path / "older.tsv", {"machine": "Ampere GPU"}), about)
    about = describe(Target(device="cuda", mode="graphs"))
    check_same(header_of(tmp_path / "graphs.tsv", about | {"host": "far"}), about)
    assert "processor" not in about


@pytest.mark.parametrize(
    ("told", "code", "line", "disturbed"),
    [("63", 0, "63% before", True), ("4", 0, "4% before", False), ("[N/A]", 0, None, False), ("63", 6, None, False)],
)
def test_others_on_the_gpu_disturb(tmp_path, monkeypatch, told, code, line, disturbed):
    monkeypatch.setenv("PATH", stand_in(tmp_path, f'test "$4" = GPU-1 && echo "{told}"; exit {code}'))
    lines = Watch("GPU-1").report(0.0)
    assert lines.get("gpu_load") == line
    assert ("of the GPU's time" in lines.get("disturbed", "")) == disturbed
    assert "gpu_load" not in Watch().report(0.0)


def test_nvidia_smi_is_not_waited_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr("fbnet.device._NVIDIA_SMI_S", 0.2)
    monkeypatch.setenv("PATH", stand_in(tmp_path, "exec sleep 60"))
    assert nvidia_smi("driver_version") is None


SECOND_USER = """
import logging, os, sys, tempfile
from fbnet.device import take

os.setuid(65534)
tempfile.tempdir = sys.argv[1]
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
take(["one"], 1)
print("taken", flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_users_take_turns_on_a_device(tmp_path, monkeypatch):
    """Whatever the umask of the first, and where each may remove only what is his, as in /tmp."""
    with tempfile.TemporaryDirectory() as shared:  # into tmp_path no other user comes
        os.chmod(shared, 0o1777)
        monkeypatch.setattr(tempfile, "tempdir", shared)
        before = os.umask(0o077)
        lock = take(["one"], 1)["one"]
        os.umask(before)
        path = Path(shared, "fbnet-one.lock")
        assert path.stat().st_mode & 0o777 == 0o666
        path.chmod(0o600)  # as it was left by others
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
        command = [sys.executable, "-c", SECOND_USER, shared]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
            assert "Waiting: of 1 devices, 0 are free" in other.stdout.readline()
            assert f"{path} cannot be opened" in other.stdout.readline()
            path.chmod(0o666)
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(1.5)  # the device is still the first one's
            os.close(lock)
            assert other.communicate(timeout=60)[0] == "taken\n"
            assert other.returncode == 0
