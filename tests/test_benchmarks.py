"""The programs that measure: what a step launches, and that they run through, in a tiny form and on the CPU."""

import argparse
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pandas as pd
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import ROOT
from fbnet.errors import InputError
from fbnet.space import read_space

sys.path.append(str(ROOT / "benchmarks"))

import first_steps
import gpu
import gpu_steps
import launches
import search_quality
from figures import PARTS, Figures


@pytest.mark.xdist_group("fake tensors")
@pytest.mark.parametrize("kind", gpu_steps.KERNELS)
def test_a_step_dispatches_few_operations(kind):
    assert mean(found.total() for found in launches.counts(kind, draws=16)) <= gpu_steps.KERNELS[kind]


def test_a_path_is_the_same_operations_at_any_batch_size():
    """On fake tensors and on real ones."""
    [few] = launches.operations(launches.search("single path", launches.FEW, 2), "weights", 1)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    [many] = launches.operations(launches.search("single path", 192, 2), "weights", 1, mode)
    assert few == many


@pytest.mark.parametrize(
    ("name", "has_kernel"),
    [("mm.default", True), ("relu_.default", True), ("_to_copy.default", True), ("_fused_sgd_.tensor_lr", True)]
    + [(name, False) for name in ("view.default", "split_with_sizes.default", "detach.default", "new_empty.default")],
)
def test_views_and_allocations_launch_nothing(name, has_kernel):
    assert launches.launches(name) == has_kernel


def figures_in(folder: Path) -> Figures:
    return Figures(folder, dict.fromkeys(PARTS, "0" * 12), {"machine": "toy", "versions": "none"})


def by_name(figures: Figures, part: str) -> dict[str, dict]:
    return {row["what"]: row for row in figures.of(part)}


def test_without_a_gpu_a_part_says_so_and_does_nothing_else(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "steps", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "there is no GPU here" in done.stderr
    assert not list(tmp_path.iterdir())


TOY_TESTS = """
import os, signal, time, pytest

def test_right(record_property):
    record_property("mean error", "1 %")

def test_wrong():
    assert 1 == 2

@pytest.mark.skip(reason="one GPU")
def test_of_two():
    pass

def test_fatal():
    os.kill(os.getpid(), signal.SIGKILL)

def test_slow():
    time.sleep(1)  # that it has begun is heard
    os.kill(os.getppid(), signal.SIGALRM)  # the time is up
    time.sleep(60)

def test_last():
    pass
"""


def test_each_test_has_a_row_and_is_run_once(tmp_path):
    file = tmp_path / "toys/test_toys.py"
    file.parent.mkdir()
    file.write_text(TOY_TESTS, encoding="utf-8")
    options = [str(file), "-p", "no:cacheprovider"]
    gpu.tests(figures_in(tmp_path), options, minutes=5)  # stops in test_slow
    rows = by_name(figures_in(tmp_path), "tests")
    outcomes = {name.rpartition("::")[2]: (row["held"], row["note"]) for name, row in rows.items()}
    assert outcomes["test_right"] == ("held", "mean error 1 %")
    assert outcomes["test_wrong"] == ("did not hold", "assert 1 == 2")
    assert outcomes["test_of_two"] == ("left out", "one GPU")
    assert outcomes["test_fatal"] == ("did not hold", "ended the whole process, with code -9")
    assert "test_slow" not in outcomes
    assert rows["all of it"]["value"] == "no"

    gpu.tests(figures_in(tmp_path), options, minutes=5)  # which had this call for itself
    rows = by_name(figures_in(tmp_path), "tests")
    [slow] = [row for name, row in rows.items() if name.endswith("test_slow")]
    assert (slow["held"], slow["note"]) == ("left out", "not done in 5 minutes")

    dates = {name: row["date"] for name, row in rows.items()}
    gpu.tests(figures_in(tmp_path), options, minutes=1)
    rows = by_name(figures_in(tmp_path), "tests")
    assert rows["all of it"]["value"] == "yes"
    assert {name: rows[name]["date"] for name in dates if name != "all of it"} == {
        name: date for name, date in dates.items() if name != "all of it"
    }
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Of 4 expectations 2 held. Did not hold: " in page
    assert "Not finished: steps, search." in page
    file.write_text("import nothing_of_this_name", encoding="utf-8")
    with pytest.raises(InputError, match="pytest ended with code 2"):
        gpu.tests(figures_in(tmp_path / "other"), options, minutes=1)


def test_all_kinds_of_steps_are_measured(tmp_path):
    """What a GPU would run, in a tiny space on the CPU; torch.compile, which takes minutes, aside."""
    figures = figures_in(tmp_path)
    bench = gpu_steps.Bench(read_space("tiny"), torch.device("cpu"), images=96, rounds=2, steps=1)
    measurements = [one for one in gpu_steps.all_measurements(bench, figures, (16,), 16) if "compiled" not in one.name]
    gpu_steps.steps(figures, measurements, minutes=2)
    rows = by_name(figures_in(tmp_path), "steps")
    assert rows["all of it"]["value"] == "yes"
    for kind in ("soft, weights", "soft, theta", "single path, weights", "single path, theta", "training one network"):
        for figure in ("step", "kernels", "busy", "epoch"):
            assert float(rows[f"{kind}: {figure}"]["value"]) > 0
    assert float(rows["soft, weights: times faster than the plain step of weights"]["value"]) > 0
    for kind in ("soft, weights", "single path, weights", "training one network"):
        assert rows[f"{kind}, determinism: two runs end bit-equal with it"]["held"] == "held"
        assert float(rows[f"{kind}, determinism: what it costs"]["value"]) > -100
        assert float(rows[f"{kind}, memory: peak"]["value"]) > 0
    assert [name for name, row in rows.items() if row["held"] == "left out"] == ["data type of the steps"]
    assert all(row["batch"] == "16" for name, row in rows.items() if name != "all of it")


def test_what_was_had_is_not_measured_again_and_what_cannot_be_is_left_out(tmp_path):
    calls = []

    def works():
        calls.append("works")
        return [{"what": "works: step", "value": 1.5, "unit": "ms", "n": 3}, {"what": "works: kernels", "held": "held"}]

    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 82 GiB")

    def cannot():
        raise InputError("torch.compile does not work here")

    def broken():
        raise RuntimeError("expected scalar type BFloat16 but found Float\nand more")

    def endless():
        calls.append("endless")
        signal.raise_signal(signal.SIGALRM)  # the time is up

    measurements = [
        gpu_steps.Measurement(function.__name__, 192, function) for function in (works, too_large, cannot, broken, endless)
    ]
    gpu_steps.steps(figures_in(tmp_path), measurements, minutes=5)
    rows = by_name(figures_in(tmp_path), "steps")
    assert (rows["too_large"]["held"], rows["too_large"]["note"]) == ("left out", "does not fit into the memory")
    assert rows["cannot"]["note"] == "torch.compile does not work here"
    assert (rows["broken"]["held"], rows["broken"]["note"]) == (
        "did not hold",
        "expected scalar type BFloat16 but found Float",
    )
    assert "endless" not in rows
    assert rows["all of it"]["note"] == "not yet measured: endless at 192"
    gpu_steps.steps(figures_in(tmp_path), measurements, minutes=5)
    rows = by_name(figures_in(tmp_path), "steps")
    assert (rows["endless"]["held"], rows["all of it"]["value"]) == ("left out", "yes")
    assert calls == ["works", "endless", "endless"]
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert (
        "Of 2 expectations 1 held. Did not hold: broken at 192. Left out: too_large at 192; cannot at 192; endless at 192."
        in page
    )

    other = Figures(tmp_path, dict.fromkeys(PARTS, "1" * 12), {"machine": "toy"})
    assert not other.of("steps")
    assert not other.has("steps", "works", 192)


STAND_IN = """
import os, shutil, signal, sys, time
from pathlib import Path

made, results = Path(sys.argv[1]), Path(sys.argv[2])
if not results.exists():
    signal.signal(signal.SIGTERM, lambda *_: (shutil.copytree(made / "half", results), sys.exit(75)))
    os.kill(os.getppid(), signal.SIGALRM)  # the time is up
    time.sleep(60)
shutil.copytree(made / "whole", results, dirs_exist_ok=True)
"""


def test_a_search_that_was_stopped_goes_on(tmp_path):
    """A script stands for snakemake: asked to stop it leaves a checkpoint, and goes on to the end from there."""

    def history(epochs, *phases):
        rows = [{"epoch": epoch, "phase": phase} for epoch in range(epochs) for phase in phases]
        return [row | {"seconds": 30.0, "images_per_s": 800.0, "top1": 0.9} for row in rows]

    half, whole = tmp_path / "half/search/fbnet", tmp_path / "whole"
    half.mkdir(parents=True)
    torch.save({"fingerprint": "", "state": {"history": history(1, "weights", "argmax")}}, half / "checkpoint.pt")
    for name, rows in {
        "search/fbnet": history(2, "weights", "argmax"),
        "training/fbnet/seed_0": history(1, "train", "test"),
    }.items():
        (whole / name).mkdir(parents=True)
        pd.DataFrame(rows).to_csv(whole / name / "history.tsv", sep="\t", index=False)
    (whole / "architectures").mkdir()
    (whole / "architectures/fbnet.tsv").write_text(
        "name\tops\tlog_prob\tlatency_us\nfbnet\tskip skip skip\t-1.5\t4500.0\n", encoding="utf-8"
    )
    (whole / "latency").mkdir()
    (whole / "latency/cpu.validation.tsv").write_text(
        "# mean_error: 0.2\n# networks: 32\n# result: within 20 %\nops\n", encoding="utf-8"
    )

    (tmp_path / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    results = tmp_path / "results"
    command = [sys.executable, *map(str, (tmp_path / "stand_in.py", tmp_path, results))]
    gpu.search(figures_in(tmp_path), command, results, minutes=5)
    rows = by_name(figures_in(tmp_path), "search")
    assert rows["all of it"]["value"] == "no"
    assert rows["epoch 0 of the search, weights"]["value"] == "30"
    assert "derived architecture: predicted latency" not in rows

    gpu.search(figures_in(tmp_path), command, results, minutes=1)
    rows = by_name(figures_in(tmp_path), "search")
    assert rows["all of it"]["value"] == "yes"
    assert (rows["search: in all"]["value"], rows["search: in all"]["unit"]) == ("2", "minutes")
    assert (rows["search: epoch, weights"]["value"], rows["search: epoch, weights"]["n"]) == ("30", "2")
    assert rows["training: top-1 on the test set"]["value"] == "90"
    assert rows["derived architecture: predicted latency"]["value"] == "4.5"
    assert rows["latency table: MAPE"]["held"] == "did not hold"
    assert "epoch 1 of the search, argmax" in rows
    assert "epoch 1 of the search" not in (tmp_path / "page.md").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="snakemake ended with code 3"):
        gpu.search(figures_in(tmp_path), [sys.executable, "-c", "exit(3)"], results, minutes=1)


METHODS = {
    "dataset": {"name": "digits"},
    "space": "tiny",
    "search": {"batch_size": 64, "warmup_epochs": 1, "gpu": 0},
    "searches": {"soft": None, "single_path": {"sampling": "single_path", "seed": [0, 1]}},
    "threads": 1,
}


def test_methods_get_the_epochs_that_take_the_same_time(tmp_path, monkeypatch):
    seconds, timed = {"soft": 20.0, "single_path": 6.0}, []

    def timing(settings, space, images, threads):
        timed.append(settings["sampling"])
        assert (space.name, images, threads) == ("tiny", 1437, 1)
        return seconds[settings["sampling"]]

    monkeypatch.setattr(search_quality, "seconds_an_epoch", timing)
    chosen = tmp_path / "epochs.yaml"
    found = search_quality.at_equal_time(METHODS, 1.0, chosen)
    assert found["searches"] == {"soft": {"epochs": 3}, "single_path": METHODS["searches"]["single_path"] | {"epochs": 10}}
    seconds |= {"soft": 99.0, "single_path": 99.0}
    more = METHODS | {"searches": METHODS["searches"] | {"other": {"weights": {"lr": 0.5}, "warmup_epochs": 0}}}
    again = search_quality.at_equal_time(more, 1.0, chosen)["searches"]
    assert (again["soft"]["epochs"], again["single_path"]["epochs"], again["other"]["epochs"]) == (3, 10, 1)
    assert timed == ["soft", "single_path", "soft"]  # what was chosen before stays: another method costs only itself
    with pytest.raises(InputError, match="2 minutes are 1 epochs, but warmup_epochs is 1"):
        search_quality.at_equal_time(METHODS, 2.0, chosen)
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
    with pytest.raises(InputError, match="--minutes is for datasets of known size"):
        search_quality.at_equal_time(METHODS | {"dataset": {"name": "image_folder", "folder": str(tmp_path)}}, 2.0, chosen)


def test_an_epoch_is_timed(tiny):
    settings = search_quality.resolve(METHODS, search_quality.SCHEMA)[0]["searches"]["single_path_seed_0"]
    assert 0 < search_quality.seconds_an_epoch(settings, tiny, 1437, 1) < 60


def test_what_was_found_is_told_by_method(tmp_path):
    def write(name, *rows):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False)

    network = {"method": "soft", "supernet_top1": 0.2, "search_s": 90.0}
    write("summary", network | {"search": "soft_seed_0"}, network | {"search": "soft_seed_1"}, {"search": None, "method": None})
    shared = {"networks": 24, "tau_by_chance": 0.286}
    write(
        "ranking",
        shared | {"by": "supernet", "search": "soft_seed_0", "tau": 0.25, "regret": 0.031},
        shared | {"by": "supernet", "search": "soft_seed_1", "tau": -0.5, "regret": 0.01},
        shared | {"by": "chance", "tau": 0.0, "regret": 0.04},
        shared | {"by": "training", "tau": 0.75, "regret": 0.005},
    )
    compared = {"budget_us": 108.5, "method": "soft", "networks": "soft_seed_0 soft_seed_1", "top1": 0.61, "others": 1}
    write(
        "comparisons",
        compared | {"against": "macs", "other_top1": 0.6, "difference": 0.02, "half_width": 0.015, "verdict": "better"},
    )
    text = search_quality.tables(tmp_path)
    assert "| 24 networks ordered by |" in text
    assert "| supernet, soft | 0.25, -0.50 | 3.1, 1.0 | 20.0, 20.0 % | 1.5, 1.5 min |" in text
    assert "| chance | 0 ± 0.29 | 4.0 | | |" in text
    assert "| training | 0.75 | 0.5 | | |" in text
    assert "| 108 µs | soft | 61.0% (n = 2) | macs (n = 1) | 60.0% | +2.0 ± 1.5, better |" in text


def test_first_steps_tell_a_rate_that_overshoots(digits, capsys, monkeypatch):
    def entropies(warmup):
        monkeypatch.setitem(first_steps.CONFIG["search"]["weights"], "lr", 100.0)
        arguments = {"data": digits, "space": "tiny", "seeds": [0], "steps": 20, "batch": 32, "warmup": warmup}
        first_steps.main(argparse.Namespace(**arguments, sampling="soft", precision="float32", threads=1))
        header, *rows = capsys.readouterr().out.splitlines()
        return pd.read_csv(io.StringIO("\n".join([header, *rows])), sep="\t")["cross entropy, mean"]

    assert entropies(0.0).max() > 5 > 3 > entropies(1000.0).max()
