"""The search: a stochastic supernet, theta, and a latency-aware loss.

Stands on training, data, latency, network and space.
"""

from fbnet.search.judging import one_shot_accuracies
from fbnet.search.one_shot import OneShot
from fbnet.search.saved import read_supernet
from fbnet.search.search import Search
from fbnet.search.supernet import StochasticSupernet, Supernet
from fbnet.search.worth import largest

__all__ = ["OneShot", "Search", "StochasticSupernet", "Supernet", "largest", "one_shot_accuracies", "read_supernet"]
