"""A command as the engine: what it says is found, in whatever unit; what goes wrong with it is a sentence."""

import shlex
import sys

import numpy as np
import pytest

from fbnet.errors import InputError
from fbnet.latency import Target, read_header, read_table
from fbnet.latency import command_engine as engine_module
from fbnet.latency.command_engine import CommandEngine
from fbnet.latency.profiling import CALLS, measure, measure_networks

PATTERN = r"median:\s*(?P<latency>\S+) (?P<unit>\w+)"
TIMES = """
import sys
convs = open(sys.argv[1], "rb").read().count(b"Conv")
print("loaded", sys.argv[1:])
print("median: 999 ms of the warm-up")
print(f"median: {SAID}")
"""
US = "{20 + 100 * convs} us"


@pytest.fixture
def target(tmp_path):
    """A target whose command is a program of these lines."""

    def make(code="", pattern=PATTERN, **changes):
        program = tmp_path / "my timer.py"
        program.write_text(code or TIMES.replace("{SAID}", US), encoding="utf-8")
        command = f"{shlex.quote(sys.executable)} {shlex.quote(str(program))} {{model}} --threads={{threads}} -b {{batch}}"
        return Target(**{"engine": "command", "command": command, "pattern": pattern} | changes)

    return make


def us_of(target, space, ops=("ir_k3_e1", "skip", "skip")):
    return CommandEngine(space.network_cells(ops, 10), target).network(space.network_cells(ops, 10)).time()


def test_the_last_that_matches_counts_in_its_unit(tiny, target):
    assert us_of(target(TIMES.replace("{SAID}", "1.5 ms")), tiny) == 1500
    assert us_of(target(TIMES.replace("{SAID}", "0.25 s")), tiny) == 250_000
    assert us_of(target(TIMES.replace("{SAID}", "1,5 us")), tiny) == 1.5  # as some locales have it
    assert us_of(target(TIMES.replace("{SAID}", "7 us"), r"median: (?P<latency>\S+)", unit="ms"), tiny) == 7000


def test_a_table_and_networks_by_a_command(tiny, target):
    calls = []

    def progress(one_after_another):
        calls.append(len(one_after_another) if hasattr(one_after_another, "__len__") else 0)
        return one_after_another

    found = measure(tiny, 10, target(), 0.02, 100, progress)
    rows = {(row["layer"], row["op"]): row for row in found.rows}
    assert {row["runs"] for row in found.rows} == {0, CALLS}
    assert rows["1", "skip"]["latency_us"] == 0
    ops = ("ir_k5_e3", "ir_k3_e1", "skip")
    us = measure_networks(tiny, 10, target(), [ops, ("skip",) * 3], 8, times=2).us
    assert us.shape == (2, 2)
    predicted = sum(rows[cell.layer, cell.op]["latency_us"] for cell in tiny.network_cells(ops, 10))
    # a call's own 20 µs are the fit's overhead: cells alone have it each, networks once
    assert predicted == pytest.approx(us[0, 0], rel=0.15)
    assert np.array_equal(us[0], us[1])
    assert calls[0] == CALLS * (13 + 8 + 6)  # of 15 entries 2 are nothing to run; 2 designs of 4 networks, and 3 light ones each


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('no such file')\nraise SystemExit(3)", "ended with code 3; its last lines: no such file"),
        ("print('hello'); print('world')", r"says nothing that matches the pattern .*; its last lines: hello | world"),
        ("pass", "; its last lines: none"),
        ("print('median: fast ms')", "says 'median: fast ms', which is no number of us"),
        ("print('median: nan ms')", "says 'median: nan ms', which is no number of us"),
        ("print('median: -3 ms')", "says 'median: -3 ms', which is no number of us"),
        ("print('median: 1 parsec')", "says 'median: 1 parsec', which is no number of us"),
        ("import time; print('begun', flush=True); time.sleep(60)", "did not end within 1 seconds; its last lines: begun"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code -9"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n')", "says nothing that matches"),
    ],
)
def test_what_goes_wrong_is_told_with_the_last_lines(tiny, target, monkeypatch, code, message):
    monkeypatch.setattr(engine_module, "TIMEOUT_S", 1 if "sleep" in code else 60)
    with pytest.raises(InputError) as error:
        us_of(target(code), tiny)
    assert "latency: the command " in str(error.value)
    assert message.replace(".*", "") in str(error.value) or all(part in str(error.value) for part in message.split(".*"))


def test_no_shell_sees_a_command(tiny, tmp_path, target, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = target().command
    for evil in ("; touch x", "&& touch x", "$(touch x)", "`touch x`", "> x", "'; touch x'"):
        assert us_of(Target(engine="command", command=f"{plain} {evil}", pattern=PATTERN), tiny) > 0
        assert not (tmp_path / "x").exists()
    with pytest.raises(
        InputError, match=r"the command 'no such; touch x' cannot be run \(No such file or directory\): install it"
    ):
        us_of(Target(engine="command", command="'no such; touch x' {model}", pattern=PATTERN), tiny)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": "time it"}, "command is 'time it', but must have {model} where the ONNX file is to stand"),
        ({"command": ""}, "command is '', but must have {model}"),
        ({"command": "a 'b {model}"}, "cannot be split into words: no closing quotation"),
        ({"pattern": "("}, "pattern is '(', but is no regular expression"),
        ({"pattern": "ms"}, "must have a group (?P<latency>...) where the number stands"),
        ({"dtype": "bfloat16"}, "leave both out"),
        ({"device": "cuda"}, "leave both out"),
        ({"engine": "torch"}, "command and pattern are for engine 'command', but engine is 'torch'"),
    ],
)
def test_settings_that_cannot_be_meant(changes, message):
    with pytest.raises(InputError) as error:
        Target(**{"engine": "command", "command": "time {model}", "pattern": PATTERN} | changes).check("latency.a")
    assert message in str(error.value)
    assert str(error.value).startswith("latency.a: ")


def test_the_scripts_measure_and_validate_by_a_command(script, tiny, target, tmp_path):
    one = target()
    options = ["--space", "tiny", "--engine", "command", "--command", one.command, "--pattern", PATTERN]
    done = script("profile_latency", *options, "--out", tmp_path / "t.tsv")
    assert done.returncode == 0, done.stderr
    header = read_header(tmp_path / "t.tsv")
    assert (header["command"], header["pattern"], header["unit"]) == (one.command, PATTERN, "us")
    assert header["machine"].startswith("python")
    read_table(tmp_path / "t.tsv", tiny, 10, one.settings())
    done = script("validate_latency", *options, "--table", tmp_path / "t.tsv", "--networks", 4, "--out", tmp_path / "v.tsv")
    assert done.returncode == 0, done.stderr
    assert float(read_header(tmp_path / "v.tsv")["mean_error"]) < 0.2
