"""Several processes that train one supernet, each on its part of every batch."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fbnet.device import PARENT, take_gpus, usable_gpus
from fbnet.errors import InputError, Stopped
from fbnet.runtime import STOPPED, log

GRACE_S = 30  # how long the others may take to end after one has failed
LAST_WORDS = "last words"  # a queue in the parent's store, of what processes ended with, in that order


class Ranks:
    """This process among `count`; alone, every method hands back what it is given.

    Gradients are averaged; all else that must agree (initial weights, theta, noise) follows from the seed on each. A context:
    within it the processes are joined. An error that leaves it ends the process, and its parent says which it was.
    """

    def __init__(self):
        # A cluster may have set these for all that it starts: then they are of others than ours.
        self.rank, self.count = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE")) if PARENT in os.environ else (0, 1)

    def __enter__(self) -> "Ranks":
        if self.count > 1:
            threading.Thread(target=_end_with_parent, args=(int(os.environ[PARENT]),), daemon=True).start()
            self.store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.count)
            self.host = dist.new_group(backend="gloo")  # for what is decided on the host: no GPU is waited for
            if not self.is_first:
                log.setLevel(logging.CRITICAL)  # what one has to say, the others have too
        return self

    def __exit__(self, kind, error: BaseException | None, where) -> None:
        if self.count == 1:
            return
        if error is None or isinstance(error, Stopped):  # they have all agreed to stop
            dist.destroy_process_group()
            return
        mistake = isinstance(error, (InputError, OSError))
        text = str(error) if mistake else "".join(traceback.format_exception(error))
        self.store.queue_push(LAST_WORDS, json.dumps([self.rank, mistake, text]))
        # Now, before the others miss it and fail too. To leave the group in order, NCCL would wait for them, and they for it.
        os._exit(1 if mistake else 2)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes; the same parameters must have one on each."""
        if self.count > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            # Dense, and with strides that follow the parameter's: in the order of memory they are rows without a copy.
            rows = [gradient.as_strided((gradient.numel(),), (1,)) for gradient in gradients]
            flat = torch.cat(rows)
            dist.all_reduce(flat)
            flat /= self.count
            torch._foreach_copy_(rows, flat.split([len(row) for row in rows]))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def min(self, tensor: Tensor) -> Tensor:
        """The least over all processes."""
        return self._reduced(tensor, dist.ReduceOp.MIN)

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Flag by flag, whether it is set on any process; nothing waits for a GPU."""
        if self.count == 1:
            return list(flags)
        numbers = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.host)
        return numbers.bool().tolist()

    def _reduced(self, tensor: Tensor, operation) -> Tensor:
        if self.count > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor, operation)
        return tensor


def launch(count: int) -> int:
    """Run this very command as `count` processes, on a GPU each where there are any, and hand on the signals that stop it.

    The exit code is that of the first process that failed, or 0. If one dies, the others end too; if this process dies, they
    save their state and end. torchrun would do but for two things: its own exit code, and SIGUSR1, which kills it. Raises
    InputError with the sentence that a process ended with.
    """
    gpus = take_gpus(count) if usable_gpus() else []
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # here, where it outlives them all
    read_end, write_end = os.pipe()  # nobody writes: reading ends when this process does
    command = [sys.executable, *(["-m", sys.modules["__main__"].__spec__.name] if _is_module() else sys.argv[:1]), *sys.argv[1:]]
    children: list[subprocess.Popen] = []

    def hand_on(number: int, frame) -> None:
        for child in children:
            child.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, hand_on)
    for rank in range(count):
        environment = os.environ | {
            **{"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)},
            PARENT: str(read_end),
        }
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[rank].uuid
        keep_open = (read_end, *(gpu.lock for gpu in gpus))  # a lock is held until the last of them has ended
        # a session of their own: what the terminal sends reaches them through us alone
        children.append(subprocess.Popen(command, env=environment, pass_fds=keep_open, start_new_session=True))
    os.close(read_end)
    failed = _wait(children)
    os.close(write_end)
    words = [json.loads(store.queue_pop(LAST_WORDS)) for _ in range(store.queue_len(LAST_WORDS))]
    return _explained(children.index(failed), count, failed.returncode, words) if failed else 0


def _is_module() -> bool:
    return getattr(sys.modules["__main__"], "__spec__", None) is not None


def _wait(children: list[subprocess.Popen]) -> subprocess.Popen | None:
    """Wait for all; the first that failed, if any, which also ends the others."""
    failed, deadline = None, float("inf")
    while any(child.poll() is None for child in children):
        if failed is None:
            failed = _failed(children)
            if failed:
                deadline = time.monotonic() + GRACE_S
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(0.1)
    return failed or _failed(children)


def _failed(children: list[subprocess.Popen]) -> subprocess.Popen | None:
    """One that has ended otherwise than well; of several one that a signal ended: the others may have failed for want of it."""
    return min((child for child in children if child.poll()), key=lambda child: child.returncode, default=None)


def _explained(failed: int, count: int, code: int, words: list[list]) -> int:
    """Say why a process of `count` failed, by the first of the last `words` [rank, mistake, text]; the exit code.

    The first are the cause, all later ones may be of those that missed it. Raises InputError with them, if they are a sentence
    on a user's mistake.
    """
    if words and words[0][1]:
        rank, _, sentence = words[0]
        raise InputError(sentence if [0, True, sentence] in words else f"process {rank + 1} of {count}: {sentence}")
    if code < 0:
        log.error("Process %d of %d was ended by %s.", failed + 1, count, signal.Signals(-code).name)
        return 128 - code
    if words:
        log.error("Process %d of %d stopped by a fault of the program\n%s", words[0][0] + 1, count, words[0][2])
    elif code != STOPPED:
        log.error("Process %d of %d ended with code %d.", failed + 1, count, code)
    return code


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
