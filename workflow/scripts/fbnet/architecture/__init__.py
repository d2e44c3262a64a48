"""What is done with an architecture: choosing it within a budget, finding it by name or file, handing it on to other tools.

Stands on latency, network and space. What is handed on here does without torch and NumPy.
"""

from fbnet.architecture.budget import in_us
from fbnet.architecture.lookup import find

__all__ = ["find", "in_us"]
