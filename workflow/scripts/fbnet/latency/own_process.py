"""Networks in processes of their own, as a user's program runs them.

Each is forked from a process that has imported the engine's library and done nothing else: it finds the C library's memory as a
program of its own does, where no other network has been. All live side by side; one runs while the others wait.
"""

import gc
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from fbnet.errors import InputError

_SCRIPTS = Path(__file__).parents[2]
_SERVER = "import sys; import fbnet.latency.visit; from fbnet.latency.own_process import serve; serve(int(sys.argv[1]))"


class OwnProcesses:
    """Starts a process for each network; all end with this.

    `load` is called once, where they are forked from, to import what they need, and returns what makes a network, there, of
    whatever `network` gets.
    """

    def __init__(self, load: Callable[[], Callable]):
        self._above, below = Pipe()
        self._count = 0
        path = os.pathsep.join([str(_SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-c", _SERVER, str(below.fileno())]
        self._server = subprocess.Popen(command, pass_fds=[below.fileno()], env=os.environ | {"PYTHONPATH": path})
        below.close()
        self._above.send(load)
        weakref.finalize(self, _end, self._above, self._server)

    def network(self, what) -> "Remote":
        """Start the process of a network. Raises what is wrong there, and InputError if it ends."""
        number = self._count
        self._count += 1
        self._ask(None, what)
        return Remote(partial(self._ask, number))

    def _ask(self, number: int | None, what):
        try:
            self._above.send((number, what))
            answer = self._above.recv()
        except (EOFError, OSError):
            answer = _ended(self._server.wait())
        if isinstance(answer, Exception):
            raise answer
        return answer


class Remote:
    """A network in its process."""

    def __init__(self, ask: Callable):
        self._ask = ask

    def do(self, what: Callable):
        """What a function of the network returns there."""
        return self._ask(what)


def _end(above: Connection, server: subprocess.Popen) -> None:
    above.close()
    server.wait()


def _ended(code: int) -> InputError:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return InputError(f"latency: a process in which a network is measured {how}: see that there is memory for all side by side")


def serve(descriptor: int) -> None:
    """Fork a process for each network that is asked for, and hand on what is said to it and by it, until nobody asks."""
    above = Connection(descriptor)
    make = above.recv()()
    processes: list[tuple[int, Connection]] = []
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            number, what = above.recv()
            if number is None:
                processes.append(_fork(make, what, [above, *(connection for _, connection in processes)]))
                above.send(_answer(*processes[-1]))
            else:
                above.send(_answer(*processes[number], wish=what))
    for _, connection in processes:
        connection.close()
    for pid, _ in processes:
        with suppress(ChildProcessError):  # one that has ended before
            os.waitpid(pid, 0)


def _fork(make: Callable, what, not_its: list[Connection]) -> tuple[int, Connection]:
    ours, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    for connection in (ours, *not_its):
        connection.close()
    try:
        network = make(what)
        gc.disable()
        theirs.send(None)
        while True:
            theirs.send(theirs.recv()(network))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:
        # Others may not be made again of what is sent.
        theirs.send(error if isinstance(error, InputError) else RuntimeError(f"{type(error).__name__}: {error}"))
    finally:
        os._exit(0)


def _answer(pid: int, connection: Connection, wish: Callable | None = None):
    """What a process says to a wish, or, without one, when its network is there."""
    try:
        if wish:
            connection.send(wish)
        return connection.recv()
    except (EOFError, OSError):
        return _ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
