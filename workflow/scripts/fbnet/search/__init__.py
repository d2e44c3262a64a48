"""The search: a stochastic supernet, theta, and a latency-aware loss.

Stands on training, data, latency, network and space.
"""

from fbnet.search.saved import read_supernet
from fbnet.search.search import Search
from fbnet.search.supernet import StochasticSupernet, Supernet

__all__ = ["Search", "StochasticSupernet", "Supernet", "read_supernet"]
