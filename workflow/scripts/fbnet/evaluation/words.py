"""How findings and reports write numbers."""

import math


def rounded(value: float, significant: int = 3) -> str:
    """A number with so many significant digits and no exponent."""
    decimals = significant - 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, decimals)}f}"


def milliseconds(latency_us: float) -> str:
    """A latency with its unit."""
    return f"{rounded(latency_us / 1000)} ms"


def counted(count: int, one: str, more: str = "") -> str:
    """`1 network`, `2 networks`."""
    return f"{count} {one if count == 1 else more or one + 's'}"
