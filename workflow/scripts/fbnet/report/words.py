"""How pages and pictures write numbers, beside what findings do."""

from fbnet.evaluation.words import milliseconds as in_words
from fbnet.evaluation.words import rounded

NBSP = "\N{NO-BREAK SPACE}"


def milliseconds(latency_us: float) -> str:
    """A latency with its unit, which stays on the same line."""
    return in_words(latency_us).replace(" ", NBSP)


def percent(value: float) -> str:
    """An accuracy in per cent."""
    return f"{value:.2%}"


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 12 min, 3.4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f}{NBSP}s"
    return f"{seconds / 60:.0f}{NBSP}min" if seconds < 99.5 * 60 else f"{rounded(seconds / 3600, 2)}{NBSP}h"
