"""The networks of a space: a candidate for each layer, which from one to the next agree in channels."""

import operator
from collections.abc import Callable, Sequence

from fbnet.space.search_space import SearchSpace

Numbers = tuple[int, ...]  # of a network's candidates, layer by layer


def count(space: SearchSpace) -> int:
    """How many networks there are."""
    ways = {space.stem.c_out: 1}
    for layer in space.layers:
        after: dict[int, int] = {}
        for (c_in, c_out), numbers in alike(layer).items():
            after[c_out] = after.get(c_out, 0) + ways[c_in] * len(numbers)
        ways = after
    return sum(ways.values())


def extreme(space: SearchSpace, values: Sequence[Sequence[float]], which: Callable = max) -> Numbers:
    """The network whose `values`, one for each candidate of each layer, have the largest sum, or by `which` min the least."""
    total = operator.itemgetter(0)
    reached: dict[int, tuple[float, Numbers]] = {space.stem.c_out: (0.0, ())}  # the best so far, by its channels
    for layer, row in zip(space.layers, values, strict=True):
        ways: dict[int, list[tuple[float, Numbers]]] = {}
        for (c_in, c_out), numbers in alike(layer).items():
            number, (before, path) = which(numbers, key=row.__getitem__), reached[c_in]
            ways.setdefault(c_out, []).append((before + row[number], (*path, number)))
        reached = {channels: which(some, key=total) for channels, some in ways.items()}
    return which(reached.values(), key=total)[1]


def walk(space: SearchSpace, choose: Callable[[int, list[int]], int]) -> Numbers:
    """A network: `choose` gets the index of each layer, and the numbers of its candidates that agree with those before."""
    numbers: list[int] = []
    channels = space.stem.c_out
    for index, layer in enumerate(space.layers):
        numbers.append(choose(index, [number for number, cell in enumerate(layer) if cell.c_in == channels]))
        channels = layer[numbers[-1]].c_out
    return tuple(numbers)


def with_heads(space: SearchSpace, costs: Sequence, heads: Sequence[float], together: Callable = operator.add) -> list:
    """The `costs` of all candidates, layer by layer, in the last one with the cost of the head's convolution that they lead to.

    Where that is the same for all, it is no candidate's cost: then they stay as they are.
    """
    if len(space.heads) == 1:
        return list(costs)
    of = {head.c_in: cost for head, cost in zip(space.heads, heads, strict=True)}
    *before, last = costs
    return [*before, [together(cost, of[cell.c_out]) for cell, cost in zip(space.layers[-1], last, strict=True)]]


def alike(layer) -> dict[tuple[int, int], list[int]]:
    """The numbers of a layer's candidates by their channels (c_in, c_out)."""
    found: dict[tuple[int, int], list[int]] = {}
    for number, cell in enumerate(layer):
        found.setdefault((cell.c_in, cell.c_out), []).append(number)
    return found
