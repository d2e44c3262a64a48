"""A network for processes of their own that needs nothing: it sleeps, and tells of its process."""

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

    def laps(self):
        return os.getpid(), os.getppid(), set(sys.modules)


class Unsendable(Exception):
    def __init__(self, one, other):
        super().__init__("what cannot be sent")


class Broken(Toy):
    def time(self):
        raise Unsendable(1, 2)


def toys():
    return Toy


def broken():
    return Broken


def no_library():
    raise ImportError("no such library")
