"""Settings of small searches and trainings, and the commands that run them."""

import json
import os
import sys

from conftest import ROOT, SPACES
from fbnet.settings import TrainSettings

SETTINGS = {
    "seed": 3,
    "epochs": 4,
    "warmup_epochs": 1,
    "batch_size": 64,
    "weight_share": 0.8,
    "sampling": "soft",
    "shared_weights": False,
    "draws_per_batch": 1,
    "theta_init": "zeros",
    "weights": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "warmup_epochs": 0},
    "theta": {"lr": 0.05, "weight_decay": 5e-4},
    "temperature": {"start": 5.0, "decay": 4.005},
    "loss": {"form": "paper", "alpha": 0.2, "beta": 0.6},
    "augment": {"crop_padding": 1, "flip": True},
    "keep": "last",
    "gpu": 1,
    "precision": "auto",
    "compile": False,
}

ONE_SHOT = {
    **{key: SETTINGS[key] for key in ("seed", "epochs", "weight_share", "augment", "gpu", "precision")},
    "batch_size": 32,
    "shared_weights": True,
    "paths": 2,
    "rated": 40,
    "weights": SETTINGS["weights"] | {"warmup_epochs": 1},
}

RECIPE = {
    "epochs": 6,
    "warmup_epochs": 1,
    "batch_size": 32,
    "validation_share": 0.2,
    "start": "scratch",
    "teacher": 0,
    "lr": 0.2,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "drops": [],
    "label_smoothing": 0.1,
    "ema": 0.9,
    "dropout": None,
    "augment": {"crop_padding": 1, "flip": False},
    "gpu": 0,
    "precision": "auto",
}


OPS = "ir_k3_e1 ir_k5_e3 skip"


def recipe(**changes):
    return TrainSettings.of(RECIPE | {"seed": 0} | changes)


def train(digits, table, out, settings=SETTINGS, *options):
    """The command that trains, with one thread: its sums have one order."""
    settings = {"method": "fbnet"} | settings
    return [
        *(sys.executable, str(ROOT / "workflow/scripts/train_supernet.py")),
        *("--data", str(digits), "--space", str(SPACES / "tiny.yaml"), "--table", str(table), "--threads", "1"),
        *("--settings", json.dumps(settings), "--out", str(out), "--log", str(out.with_suffix(".log")), *options),
    ]


STOPS = int(os.environ.get("STOPS", 1))


def read(path):
    return path.read_text(encoding="utf-8") if path.exists() else ""
