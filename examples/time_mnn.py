#!/usr/bin/env python3
"""How long MNN (pip install mnn) takes for an ONNX file: python time_mnn.py MODEL THREADS"""

import statistics
import sys
import tempfile
import time

import _tools  # MNN's mnnconvert
import MNN

model, threads = sys.argv[1:]
with tempfile.NamedTemporaryFile(suffix=".mnn") as converted:
    _tools.mnnconvert(["", "-f", "ONNX", "--modelFile", model, "--MNNModel", converted.name])
    network = MNN.Interpreter(converted.name)
session = network.createSession({"backend": "CPU", "numThread": int(threads)})
times = []
for _ in range(60):
    start = time.perf_counter()
    network.runSession(session)
    times.append(time.perf_counter() - start)
print(f"median {1000 * statistics.median(times[10:])} ms")
