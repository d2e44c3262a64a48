"""Networks as any program runs them that can time an ONNX file: a command, and where it says how long one inference takes."""

import math
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence

from fbnet.errors import InputError
from fbnet.latency.onnx_engine import OnnxFiles
from fbnet.latency.target import UNITS_US, Target, words
from fbnet.space import Cell

TIMEOUT_S = 120  # that a call may take
LAST_LINES = 8  # of what a command has said, in a sentence about it


class CommandEngine:
    """Runs chains of cells by the target's command, which is called once for each time.

    Each chain is exported once, to a folder that goes with these. Cells are timed alone, as in OnnxEngine.
    """

    def __init__(self, cells: Iterable[Cell], target: Target):
        self.target, self.files = target, OnnxFiles(cells, target)

    def network(self, path: Sequence[Cell]) -> "_Command":
        """The command for these cells in a row."""
        return _Command(self.target, self.files, path)


class _Command:
    def __init__(self, target: Target, files: OnnxFiles, path: Sequence[Cell]):
        self.target, self.files = target, files  # which are there as long as these
        values = {"{model}": str(files.file(path)), "{threads}": str(target.threads), "{batch}": str(target.batch)}
        places = "|".join(map(re.escape, values))
        self.words = [re.sub(places, lambda place: values[place[0]], word) for word in words(target.command)]

    def time(self) -> float:
        """µs of one inference, as the command says. Raises InputError, with its last lines, if it fails or does not say it."""
        target = self.target
        try:
            done = subprocess.run(
                self.words,
                **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
                **{"encoding": "utf-8", "errors": "replace", "timeout": TIMEOUT_S},
            )
        except OSError as error:
            raise InputError(
                f"latency: the command {self.words[0]!r} cannot be run ({error.strerror}): install it, or name its path"
            ) from None
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            raise self._fault(f"did not end within {TIMEOUT_S} seconds", said) from None
        if done.returncode:
            raise self._fault(f"ended with code {done.returncode}", done.stdout)
        found = list(re.finditer(target.pattern, done.stdout))
        if not found:
            raise self._fault(f"says nothing that matches the pattern {target.pattern!r}", done.stdout)
        said = found[-1].groupdict()
        try:
            us = float(said["latency"].replace(",", ".")) * UNITS_US[said.get("unit") or target.unit]
        except (ValueError, KeyError):
            us = math.nan
        if not (math.isfinite(us) and us > 0):
            raise self._fault(f"says {found[-1][0]!r}, which is no number of {', '.join(UNITS_US)}", done.stdout)
        return us

    def _fault(self, what: str, said: str) -> InputError:
        lines = [line for line in said.splitlines() if line.strip()][-LAST_LINES:]
        return InputError(f"latency: the command {shlex.join(self.words)} {what}; its last lines: {' | '.join(lines) or 'none'}")
