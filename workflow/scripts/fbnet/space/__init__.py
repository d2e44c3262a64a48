"""What can be searched: operators, the layers of a space, architectures in it, the published ones. Data, read without torch.

Stands on the ground alone.
"""

from fbnet.space.architecture import Architecture, compact, parse, read_architectures
from fbnet.space.cell import Cell
from fbnet.space.networks import alike, count, extreme, walk, with_heads
from fbnet.space.operators import CANDIDATES, OPERATORS, Operator
from fbnet.space.search_space import SearchSpace, make_space, read_space
from fbnet.space.zoo import fitting, in_space, published

__all__ = [
    "CANDIDATES",
    "OPERATORS",
    "Architecture",
    "Cell",
    "Operator",
    "SearchSpace",
    "alike",
    "compact",
    "count",
    "extreme",
    "fitting",
    "in_space",
    "make_space",
    "parse",
    "published",
    "read_architectures",
    "read_space",
    "walk",
    "with_heads",
]
