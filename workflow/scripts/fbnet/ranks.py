"""Several processes that train one supernet, each on its part of every batch."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fbnet.device import take_gpus
from fbnet.runtime import STOPPED, log

GRACE_S = 30  # how long the others may take to end after one has failed
PARENT = "FBNET_PARENT"  # a pipe that ends when the parent does


class Ranks:
    """This process among `count`; alone, every method hands back what it is given.

    Gradients are averaged; all else that must agree (initial weights, theta, noise) follows from the seed on each.
    """

    def __init__(self):
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.count > 1:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            self.host = dist.new_group(backend="gloo")  # for what is decided on the host: no GPU is waited for
        if PARENT in os.environ:
            threading.Thread(target=_end_with_parent, args=(int(os.environ[PARENT]),), daemon=True).start()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes; the same parameters must have one on each."""
        if self.count > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients])) / self.count
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

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
    save their state and end. torchrun would do but for two things: its own exit code, and SIGUSR1, which kills it.
    """
    gpus = take_gpus(count) if torch.cuda.is_available() else []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
            **{"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            PARENT: str(read_end),
        }
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[rank].uuid
        keep_open = (read_end, *(gpu.lock for gpu in gpus))  # a lock is held until the last of them has ended
        # a session of their own: what the terminal sends reaches them through us alone
        children.append(subprocess.Popen(command, env=environment, pass_fds=keep_open, start_new_session=True))
    os.close(read_end)
    code = _wait(children)
    os.close(write_end)
    return code


def _is_module() -> bool:
    return getattr(sys.modules["__main__"], "__spec__", None) is not None


def _wait(children: list[subprocess.Popen]) -> int:
    """Wait for all; the code of the first that failed, which also ends the others."""
    failed, deadline = None, float("inf")
    while any(child.poll() is None for child in children):
        if failed is None:
            failed = next((child for child in children if child.poll()), None)
            if failed:
                deadline = time.monotonic() + GRACE_S
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(0.1)
    failed = failed or next((child for child in children if child.returncode), None)
    if failed is None:
        return 0
    if failed.returncode not in (1, STOPPED):
        log.error("Process %d of %d ended with code %d.", children.index(failed), len(children), failed.returncode)
    return failed.returncode if failed.returncode > 0 else 128 - failed.returncode


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
