#!/usr/bin/env python3
"""A weight step of the supernet, each kind, against the plain formulation: time, peak memory, and the floor."""

import argparse
import os
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

import psutil
import torch
from plain import PlainTraining
from steps import SEARCHES, a_search, random_images, stepping, wait

from fbnet.device import choose_device
from fbnet.memory import is_out_of_memory
from fbnet.network import size
from fbnet.search.fused import computed_in
from fbnet.space import read_space
from fbnet.terminal import replace_unknown_characters

KINDS = ("plain", *SEARCHES)


def make(kind: str, space, batch: int, device: torch.device, compiled: bool = False):
    """A function that makes one step, with its loading of images and its metrics."""
    dataset = random_images(max(50 * batch, 2000), space.resolution)  # so that few steps are a phase's first, which draws
    if kind == "plain":
        return PlainTraining(space, dataset, batch, device).step
    search = a_search(space, dataset, device, **SEARCHES[kind], batch_size=batch, compile=compiled and kind == "soft")
    return partial(next, stepping(search, "weights"))


def times(space, arguments, device) -> dict[str, list[float]]:
    """Seconds of steps by kind, taking turns; short ones run several at a time. What does not fit into the memory is left out."""
    runs = {kind: make(kind, space, arguments.batch, device, arguments.compile) for kind in KINDS}
    repeats = {kind: 10 if kind.startswith("single path") else 3 if device.type == "cuda" else 1 for kind in KINDS}
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(arguments.rounds + 2):
        for kind in list(runs):
            wait(device)
            start = time.perf_counter()
            try:
                for _ in range(repeats[kind]):
                    runs[kind]()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                print(f"Left out: {kind}, which does not fit into the memory.")
                del runs[kind], found[kind]
                continue
            wait(device)
            seconds = time.perf_counter() - start
            time.sleep(0.5)  # the plain loader's workers read ahead: not on the next one's time
            if number >= 2:  # before, it warms up
                found[kind].append(seconds / repeats[kind])
    return found


def memory(kind: str, space, batch: int, device: torch.device) -> tuple[float, float]:
    """Peak of this process in GB, and what of it six steps have added to the model and its optimiser."""
    step = make(kind, space, batch, device)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else psutil.Process().memory_info().rss
    for _ in range(6):
        step()
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_rss()
    return peak / 1e9, (peak - before) / 1e9


def peak_rss() -> int:
    """Of this process alone; what getrusage says starts from the parent's."""
    return 1024 * int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0])


def floor(space, batch: int, device: torch.device) -> dict[str, tuple[float, float]]:
    """Least seconds by kind: (MACs · 3 over the matrix rate, activations' bytes over the bandwidth), both rates measured.

    In the data type that steps compute in here.
    """
    with a_search(space, random_images(2 * batch, space.resolution), device, batch_size=batch, weight_share=0.5).autocast():
        dtype = computed_in(torch.empty(0, device=device))
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    rate = 2 * side**3 / least(lambda: a @ a, device)
    source = torch.zeros(2**26, device=device)
    copy = torch.empty_like(source)
    bandwidth = 2 * 4 * len(source) / least(lambda: copy.copy_(source), device)
    fixed, candidates = space.fixed_cells(10), [cell for layer in space.layers for cell in layer]
    mean = 1 / len(space.layers[0])
    found = {}
    for kind, share in (("soft", 1.0), ("single path", mean)):
        macs = size(fixed)[0] + share * size(candidates)[0]
        numbers = sum(map(activations, fixed)) + share * sum(map(activations, candidates))
        # each activation is written and read in the forward pass; so are it and its gradient in the backward pass
        found[kind] = (3 * 2 * macs * batch / rate, 3 * 2 * dtype.itemsize * numbers * batch / bandwidth)
    print(f"Measured: {rate / 1e9:.0f} GFLOP/s in matrix products in {dtype}, {bandwidth / 1e9:.1f} GB/s in copies.\n")
    return found


def activations(cell) -> int:
    """Numbers that the convolutions of a cell put out for an image."""
    out = -(-cell.height // cell.stride) * -(-cell.width // cell.stride)
    if cell.op.startswith("ir_"):
        middle = cell.c_in * cell.expansion
        return middle * cell.height * cell.width + middle * out + cell.c_out * out
    return 0 if cell.is_identity else cell.c_out * (1 if cell.op == "pool_fc" else out)


def least(function, device) -> float:
    found = []
    for _ in range(8):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        found.append(time.perf_counter() - start)
    return min(found)


def main(arguments: argparse.Namespace) -> None:
    space = read_space(arguments.space)
    device = choose_device(arguments.threads)
    if arguments.memory_of:
        print(*memory(arguments.memory_of, space, arguments.batch, device))
        return
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"{arguments.space}, batch {arguments.batch}, {name}, torch {torch.__version__}, Python {platform.python_version()}")
    found = times(space, arguments, device)
    floors = floor(space, arguments.batch, device)
    options = ["--space", arguments.space, "--batch", str(arguments.batch), "--threads", str(arguments.threads)]
    peaks = {
        kind: tuple(
            map(
                float,
                subprocess.run(
                    [sys.executable, __file__, *options, "--memory-of", kind], capture_output=True, text=True, check=True
                ).stdout.split()[-2:],
            )
        )
        for kind in found
    }
    print(
        "| step | median time | images/s | times faster: median, quartiles | peak memory | training adds | floor: MACs, bytes |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind, seconds in found.items():
        middle, (peak, added) = median(seconds), peaks[kind]
        cells = [kind, f"{1e3 * middle:.0f} ms", f"{arguments.batch / middle:.0f}"]
        if "plain" in found:
            low, faster, high = quantiles((plain / own for plain, own in zip(found["plain"], seconds, strict=True)), n=4)
            cells += [f"{faster:.1f} ({low:.1f} to {high:.1f})"]
            cells += [f"{peak:.2f} GB ({peak / peaks['plain'][0]:.2f} ×)", f"{added:.2f} GB ({added / peaks['plain'][1]:.2f} ×)"]
        else:
            cells += ["–", f"{peak:.2f} GB", f"{added:.2f} GB"]
        if kind in floors:
            by_macs, by_bytes = floors[kind]
            cells.append(
                f"{1e3 * by_macs:.0f} ms, {1e3 * by_bytes:.0f} ms; we take {middle / max(by_macs, by_bytes):.1f} × the larger"
            )
        print("| " + " | ".join(cells) + " |")
    print(f"\nn = {arguments.rounds} rounds; a single-path time is the mean of 10 steps.")


if __name__ == "__main__":
    replace_unknown_characters()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="fbnet_32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, where there is no GPU (0: all)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="the soft step by torch.compile")
    parser.add_argument("--memory-of", choices=KINDS, help="only print the peak memory of one kind, in GB")
    main(parser.parse_args())
