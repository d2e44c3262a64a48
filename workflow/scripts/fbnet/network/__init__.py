"""Operators as PyTorch modules, and the network of one architecture.

Stands on space.
"""

from fbnet.network.blocks import build, size
from fbnet.network.network import Network, cut_out, subnetwork_weights

__all__ = ["Network", "build", "cut_out", "size", "subnetwork_weights"]
