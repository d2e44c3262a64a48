"""The terminal, whose locale may lack characters that are printed."""

import io
import sys


def replace_unknown_characters() -> None:
    """Have a question mark printed, on standard output and error, for what the locale lacks, instead of a failure."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a caller may have put something else there
            stream.reconfigure(errors="replace")
