"""Operators as PyTorch modules, and the network of one architecture.

Stands on space.
"""

from fbnet.network.blocks import build, shapes, size, sliced
from fbnet.network.footprint import int8_bytes, peak_values
from fbnet.network.network import Network, cut_out, own_name, subnetwork_weights

__all__ = [
    "Network",
    "build",
    "cut_out",
    "int8_bytes",
    "own_name",
    "peak_values",
    "shapes",
    "size",
    "sliced",
    "subnetwork_weights",
]
