"""Rows of an evaluation's summary, made up."""

import math

import pandas as pd


def networks(kind, top1, **columns):
    """Networks of one kind and of these accuracies, each trained three times; columns replace what is the same of all."""
    rows = {
        "network": [f"{kind}_{number}" for number in range(len(top1))],
        "kind": kind,
        "search": [f"{kind}_{number}" if kind == "found" else None for number in range(len(top1))],
        "method": "fbnet" if kind in ("found", "random_search") else None,
        "baseline": "cpu_8ms",
        "rule": None,
        "target": "cpu",
        "budget_us": 8000.0,
        "ops": [f"{kind} {number}" for number in range(len(top1))],
        "predicted_us": 7100.0,
        "measured_us": 7000.0,
        "latency_us": 7000.0,
        "macs": 1000,
        "params": 100,
        "supernet_top1": 0.6,
        "trainings": 3,
        "top1": top1,
        "top1_sd": math.nan,
        "validation_top1": top1,
        "drawn": math.nan,
        "pool": math.nan,
        "top1_error": math.nan,
    }
    return pd.DataFrame(rows | columns)


def summary(*groups):
    """These rows as one table."""
    return pd.concat(groups, ignore_index=True)


def rule(top1, name="macs", **columns):
    """What a rule chose."""
    known = {"network": [f"rule_{name}_cpu_8ms"], "rule": name, "ops": [name], "top1_sd": 0.001}
    return networks("rule", [top1], **known | columns)


def random_search(top1, drawn=3, pool=8, error=0.001, method="fbnet"):
    """The best of so many from a pool."""
    known = {"network": [f"random_search_{method}_cpu_8ms"], "method": method, "drawn": drawn, "pool": pool}
    return networks("random_search", [top1], **known, top1_error=error)
