"""Progress where there is no terminal, and files on drives that are not as a disk of Linux is."""

import errno
import os
import re
import subprocess
import sys
import time

import pytest

from conftest import ROOT
from fbnet.runtime import Progress, log, replacing, write_text


def test_a_progress_line_comes_when_nothing_was_said_for_a_minute(caplog):
    with caplog.at_level("INFO", logger=log.name), Progress(total=1000, unit="images") as bar:
        bar.set_description("epoch 2/7", refresh=False)
        bar.set_postfix_str("loss 1.25", refresh=False)
        bar.update(300)
        bar.refresh()
        assert not caplog.messages
        Progress.last_line = time.monotonic() - 61
        bar.refresh()
        bar.refresh()
    [line] = caplog.messages
    assert line.startswith("epoch 2/7: 300 of 1000 images (30%), ")
    assert line.endswith(" left, loss 1.25")


def failing(number):
    """A call of the system that fails, as those do that get an open file instead of a name."""

    def call(*arguments):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_drive_without_modes_needs_none(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fchmod", failing(number))
    write_text(tmp_path / "a.tsv", "µs\n")
    assert (tmp_path / "a.tsv").read_text(encoding="utf-8") == "µs\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def test_an_error_of_the_drive_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EDQUOT))
    with pytest.raises(OSError, match=re.escape(f"{os.strerror(errno.EDQUOT)}: '{tmp_path / 'a.tsv'}'")) as error:
        write_text(tmp_path / "a.tsv", "text")
    assert error.value.errno == errno.EDQUOT
    with pytest.raises(OSError, match=re.escape(f"'{tmp_path / 'b.tsv'}'")), replacing(tmp_path / "b.tsv"):
        failing(errno.EIO)()
    with pytest.raises(FileNotFoundError, match="another"), replacing(tmp_path / "b.tsv"):
        (tmp_path / "another").read_text(encoding="utf-8")
    assert not [*tmp_path.iterdir()]


PROGRAM = """
import argparse
from fbnet.errors import InputError
from fbnet.runtime import log, run

def main(arguments):
    print("5 µs")
    log.info("× 2")
    raise InputError("Σ")

run(argparse.ArgumentParser("program"), main)
"""


def test_what_a_locale_lacks_fails_nothing_and_the_log_is_utf_8(tmp_path):
    program, log_file = tmp_path / "program.py", tmp_path / "log"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment["PYTHONPATH"] = str(ROOT / "workflow/scripts")
    done = subprocess.run([sys.executable, program, "--log", log_file], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == b"5 ?s\n"
    assert [line.split(b": ", 1)[1] for line in done.stderr.splitlines()] == [b"? 2", b"?"]
    assert re.findall(r"\d (.*)", log_file.read_text(encoding="utf-8")) == ["× 2", "Σ"]
