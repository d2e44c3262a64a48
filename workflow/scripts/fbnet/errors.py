"""What ends a program otherwise than by a fault of ours."""


class InputError(ValueError):
    """Wrong input from the user; its text is a sentence that names the key or file, the value and the fix."""


class Stopped(Exception):
    """The program was asked to stop, and has saved its state; the next call goes on from there."""
