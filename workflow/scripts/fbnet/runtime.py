"""What every program needs around its work: a log, progress, files that are whole or not there, errors as sentences."""

import argparse
import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from fbnet.errors import InputError, Stopped
from fbnet.terminal import replace_unknown_characters

FULL = 1_000_000  # bytes; a disk with less is full
log = logging.getLogger("fbnet")
_progress_log = logging.getLogger("fbnet.progress")

STOPPED = 75  # exit code of a program that was asked to stop and saved its state (EX_TEMPFAIL of sysexits.h: try again)


class _Console(logging.Handler):
    """Log lines on the terminal, above any bar; progress lines only where there is no bar."""

    def emit(self, record: logging.LogRecord) -> None:
        Progress.last_line = time.monotonic()
        line = f"{self.format(record)}\n"  # in one piece: other jobs write there too
        if not sys.stderr.isatty():
            sys.stderr.write(line)
        elif record.name != _progress_log.name:
            tqdm.write(line, file=sys.stderr, end="")


class Progress(tqdm):
    """tqdm: a bar on a terminal, and a plain line in the log whenever it has said nothing for a minute."""

    LINE_EVERY_S = 60
    LINE = "{desc}: {n_fmt} of {total_fmt}{unit} ({percentage:.0f}%), {rate_noinv_fmt}, {remaining} left{postfix}"
    last_line = 0.0  # when anything was last said

    def __init__(self, *args, unit: str, **kwargs):
        Progress.last_line = time.monotonic()
        super().__init__(*args, unit=f" {unit}", file=sys.stderr, leave=False, dynamic_ncols=True, mininterval=0.5, **kwargs)

    def display(self, msg=None, pos=None):
        if time.monotonic() - self.last_line > self.LINE_EVERY_S and self.n:
            Progress.last_line = time.monotonic()
            now = self.format_dict | {"ncols": None, "bar_format": self.LINE, "prefix": self.desc.removesuffix(": ")}
            _progress_log.info("%s", " ".join(self.format_meter(**now).split()))
        return super().display(msg, pos) if sys.stderr.isatty() else None


def run(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> None:
    """Parse the arguments, log to the terminal and to `--log`, and run `main`; a user's mistake ends in one sentence.

    With `--log` the terminal may be shared by several jobs: each line there then begins with the program and that file's name.
    """
    replace_unknown_characters()
    parser.add_argument("--log", type=Path, help="file to write the log to")
    arguments = parser.parse_args()
    program, whose = parser.prog.removesuffix(".py"), ""
    handlers: list[logging.Handler] = [_Console()]
    if arguments.log:
        whose = f"{program}: " if arguments.log.stem in program else f"{program} {arguments.log.stem}: "
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(arguments.log, encoding="utf-8", errors="backslashreplace"))
    handlers[0].setFormatter(logging.Formatter(f"%(asctime)s {whose.replace('%', '%%')}%(message)s", "%H:%M:%S"))
    log.setLevel(logging.INFO)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    try:
        main(arguments)
    except (InputError, OSError) as error:  # a full disk or a missing permission is no fault of the program either
        log.error("%s%s", "" if whose else f"{program}: ", error)
        sys.exit(1)
    except ModuleNotFoundError as error:  # of what only some settings need
        log.error("%s%s is not here: install it", "" if whose else f"{program}: ", error.name)
        sys.exit(1)
    except Stopped as reason:
        log.warning("%s", reason)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        log.error("interrupted")
        sys.exit(130)
    except Exception:
        log.exception("%s stopped by a fault of the program", parser.prog)
        sys.exit(2)


class StopRequest:
    """Within it, SIGTERM, SIGUSR1 (what clusters send before the time is up) and Ctrl-C are only noted, in `signal`."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self):
        self.signal: str | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)  # the workflow blocks one: it may have come already
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        self.signal = signal.Signals(number).name


@contextmanager
def replacing(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary names to write `paths` under; on success they are renamed into place in this order, otherwise removed.

    Raises OSError that names the last of them, as `naming` does.
    """
    paths = tuple(map(Path, paths))
    temporaries = []
    try:
        with naming(paths[-1]):
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
                os.close(handle)
                temporaries.append(Path(name))
            yield tuple(temporaries)
            for temporary in temporaries:
                with open(temporary, "rb") as file:
                    with suppress(OSError):  # on a drive without modes nothing need be done
                        os.fchmod(file.fileno(), 0o644)  # mkstemp, and whoever replaced the file, gave it to its owner alone
                    os.fsync(file.fileno())
            for temporary, path in zip(temporaries, paths, strict=True):
                temporary.replace(path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError that names no file name this one, and whatever comes of a full disk be one (ENOSPC).

    NumPy and torch tell of that in words of their own.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) and error.filename is None else None
        if path.parent.exists() and shutil.disk_usage(path.parent).free < FULL:
            number = errno.ENOSPC
        if number:
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    with replacing(path) as (temporary,):
        temporary.write_text(text, newline="", encoding="utf-8")
