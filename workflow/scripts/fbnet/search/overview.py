"""How large a search space is: networks, and the range of their sizes and latencies."""

from collections.abc import Mapping

from fbnet.latency import LatencyTable
from fbnet.latency.profiling import SECONDS_AN_ENTRY, measured
from fbnet.network import size
from fbnet.search.cost import Cost
from fbnet.space import SearchSpace, count, extreme, with_heads


def overview(space: SearchSpace, classes: int, tables: Mapping[str, LatencyTable]) -> str:
    """A space in words: its networks, the cells that a table measures, the least and most MACs, parameters and latency."""
    timed, images = len(measured(space, classes)), f"{space.resolution}×{space.resolution}"
    lines = [
        f"Space {space.name}: {len(space.layers)} layers, {_count(count(space))} networks, for {images} images",
        f"  latency table: {len(space.cells(classes))} entries, of which {timed} differ and are measured: some "
        f"{_duration(SECONDS_AN_ENTRY * timed)} at {SECONDS_AN_ENTRY:g} s each, as on a server's core (by a command about 1 s)",
    ]
    fixed = size(space.fixed_cells(classes))
    for at, what in enumerate(("MACs", "parameters")):
        rows = [[size([cell])[at] for cell in layer] for layer in space.layers]
        rows = with_heads(space, rows, [size([head])[at] for head in space.heads])
        paths = [extreme(space, rows, which) for which in (min, max)]
        least, most = (fixed[at] + sum(row[number] for row, number in zip(rows, path, strict=True)) for path in paths)
        lines.append(f"  {what}: {_millions(least)} to {_millions(most)}")
    lines += [f"  latency on {name}: {table.least_us:.0f} to {table.most_us:.0f} µs" for name, table in tables.items()]
    return "\n".join(lines) + "\n"


def costs(name: str, cost: Cost, images: int, where: str) -> str:
    """What training a supernet takes, in words."""
    steps = ", ".join(
        f"{seconds:.2f} s a step of {phase} ({cost.steps[phase]} an epoch)" for phase, seconds in cost.step_s.items()
    )
    return (
        f"Supernet {name}: {_millions(cost.parameters)} parameters, some {_bytes(cost.bytes)} of memory; {where} {steps}: "
        f"{_duration(cost.seconds)} of training on {images} images, evaluation aside\n"
    )


def _count(networks: int) -> str:
    return f"{networks:,}" if networks < 10**6 else f"{networks:.1e}"


def _millions(number: float) -> str:
    return f"{number / 1e6:.2f} M"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
