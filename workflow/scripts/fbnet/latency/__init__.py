"""What an operator costs on a device: tables, how they are measured, and whether they predict.

Stands on network and space. What is handed on here, and what it needs, does without torch and NumPy.
"""

from fbnet.latency.int8 import quantise
from fbnet.latency.table import LatencyTable, check_error, device_of, hardly_differ, read_header, read_table, too_fast
from fbnet.latency.target import OPSET, TABLE_SETTINGS, UNITS_US, Target, words

__all__ = [
    "OPSET",
    "TABLE_SETTINGS",
    "UNITS_US",
    "LatencyTable",
    "Target",
    "check_error",
    "device_of",
    "hardly_differ",
    "quantise",
    "read_header",
    "read_table",
    "too_fast",
    "words",
]
