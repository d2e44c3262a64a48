"""Whether what was found is any good: networks trained from scratch, compared, and said in sentences.

Stands on all stages below. What is handed on here does without torch and NumPy.
"""

from fbnet.evaluation.plan import network_sets
from fbnet.evaluation.summary import print_summary

__all__ = ["network_sets", "print_summary"]
