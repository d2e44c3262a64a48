"""How pages and pictures write numbers."""

import math

NBSP = "\N{NO-BREAK SPACE}"


def rounded(value: float, significant: int = 3) -> str:
    """A number with so many significant digits and no exponent."""
    decimals = significant - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, decimals)}f}"


def milliseconds(latency_us: float) -> str:
    """A latency with its unit."""
    return f"{rounded(latency_us / 1000)}{NBSP}ms"


def percent(value: float) -> str:
    """An accuracy in per cent."""
    return f"{value:.2%}"


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 12 min, 3.4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f}{NBSP}s"
    return f"{seconds / 60:.0f}{NBSP}min" if seconds < 99.5 * 60 else f"{rounded(seconds / 3600, 2)}{NBSP}h"


def counted(count: int, one: str, more: str = "") -> str:
    """`1 network`, `2 networks`."""
    return f"{count} {one if count == 1 else more or one + 's'}"
