"""A network for processes of their own that needs nothing: it sleeps, and what is asked of it there."""

import os
import sys
import time

from fbnet.errors import InputError


class Toy:
    def __init__(self, seconds):
        if seconds < 0:
            raise InputError("time does not run backwards")
        self.seconds = seconds

    def time(self):
        start = time.perf_counter_ns()
        time.sleep(self.seconds)
        return (time.perf_counter_ns() - start) / 1000


def toys():
    return Toy


def no_library():
    raise ImportError("no such library")


def where(_network):
    return os.getpid(), os.getppid(), set(sys.modules)


class Unsendable(Exception):
    def __init__(self, one, other):
        super().__init__("what cannot be sent")


def broken(_network):
    raise Unsendable(1, 2)
