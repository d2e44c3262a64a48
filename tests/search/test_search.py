"""The supernet, its losses and its training: what moves, what does not, and what survives a kill."""

import dataclasses
import math
import os
import random
import re
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import write_table
from fbnet.data.dataset import read_dataset
from fbnet.device import choose_device
from fbnet.errors import InputError
from fbnet.latency import read_table
from fbnet.memory import bytes_per_image
from fbnet.runtime import StopRequest
from fbnet.search import Search, StochasticSupernet
from fbnet.search.gumbel import gumbel_noise, hard_masks, soft_masks, winners
from fbnet.search.loss import make_loss, paper_loss
from fbnet.settings import Settings, learning_rate_at, temperature_at
from fbnet.space import read_space
from fbnet.training import checkpoint
from recipes import SETTINGS, STOPS, read, train


@pytest.mark.parametrize(("init", "value"), [("uniform", 0.25), ("zeros", 0.0)])
def test_theta_starts_with_equal_chances(tiny, tiny_table, init, value):
    supernet = StochasticSupernet(tiny, 10, tiny_table, init)
    assert all((theta == value).all() for theta in supernet.theta)
    assert len(supernet.weights()) + 3 == len(list(supernet.parameters()))


def test_expected_latency_has_stem_and_head_and_weighs_the_candidates(tiny, tiny_table):
    supernet = StochasticSupernet(tiny, 10, tiny_table, "zeros")
    latency_us = supernet.latency_us(supernet.logits().softmax(1))
    expected = sum(tiny_table.fixed_us) + sum(sum(row) / len(row) for row in tiny_table.operators_us)
    assert latency_us.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("chosen", [None, [1, 0, 3]], ids=["soft", "single path"])
@pytest.mark.parametrize("what", ["weights", "theta"])
def test_a_phase_moves_what_it_trains_and_nothing_else(tiny, tiny_table, what, chosen):
    torch.manual_seed(0)
    supernet = StochasticSupernet(tiny, 10, tiny_table)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    supernet.learn(what)
    supernet.train()
    masks = supernet.logits().softmax(1)
    masks = hard_masks(masks, torch.tensor(chosen)) if chosen else masks
    weighs = masks[range(3), chosen] if chosen else masks
    logits = supernet(torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last), weighs, chosen)
    paper_loss(0.2, 0.6)(logits.square().mean(), supernet.latency_us(masks)).backward()
    for name, parameter in supernet.named_parameters():
        on_path = (
            not chosen
            or not name.startswith("layers")
            or any(
                name.startswith(f"layers.{number}.ops.{tiny.layers[number][choice].op}.") for number, choice in enumerate(chosen)
            )
        )
        assert (parameter.grad is not None) == (name.startswith("theta.") == (what == "theta") and on_path), name
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())  # no norm keeps statistics


def test_draws_follow_theta():
    logits, generator = torch.tensor([[0.0, 1.0, -1.0, -torch.inf]]), torch.Generator().manual_seed(0)
    noise = gumbel_noise((20_000, 1, 4), generator)
    drawn = np.bincount(winners(logits, noise).flatten(), minlength=4) / 20_000
    assert drawn == pytest.approx(logits.softmax(1)[0].tolist(), abs=0.01)
    # the same noise, cold: the soft mask is nearly the winner's
    cold = soft_masks(logits.expand(20_000, 4), noise[:, 0], 0.01)
    assert torch.equal(cold.argmax(1), (logits + noise[:, 0]).argmax(1))
    assert torch.allclose(cold.sum(1), torch.ones(20_000))


def test_beta_trades_accuracy_for_latency():
    """The reference has β inside the logarithm, where it only scales the loss."""
    ce = torch.tensor(2.0)
    fast, slow = torch.tensor(1000.0), torch.tensor(9000.0)
    ratios = [paper_loss(0.2, beta)(ce, slow) / paper_loss(0.2, beta)(ce, fast) for beta in (0.0, 0.6, 2.0)]
    assert ratios[0] == 1
    assert ratios[0] < ratios[1] < ratios[2]
    assert paper_loss(0.2, 0.6)(ce, slow).item() == pytest.approx(2 * 0.2 * math.log(9000) ** 0.6, rel=1e-5)


def test_target_loss_is_least_at_the_target_and_free_of_units():
    loss = make_loss({"form": "target", "target_us": 500.0, "weight": 2.0}, 100, 1000)
    ce, at = torch.tensor(1.0), lambda value: torch.tensor(float(value))
    assert loss(ce, at(500)) == 1
    assert loss(ce, at(250)).item() == pytest.approx(2.0)
    assert loss(ce, at(750)).item() == pytest.approx(2.0)
    in_ms = make_loss({"form": "target", "target_us": 0.5, "weight": 2.0}, 0.1, 1)
    assert in_ms(ce, at(0.25)).item() == pytest.approx(loss(ce, at(250)).item())


@pytest.mark.parametrize(
    ("settings", "least", "message"),
    [
        ({"form": "paper", "alpha": 0.2, "beta": 0.6}, 0.9, "give the table's latencies in µs"),
        ({"form": "paper", "alpha": 0.2, "beta": 0.6}, 0.0, "logarithm"),
        ({"form": "target", "target_us": 5.0, "weight": 1.0}, 10.0, "between 10 and 100 µs"),
        ({"form": "target", "target_us": 500.0, "weight": 1.0}, 10.0, "between 10 and 100 µs"),
        ({"form": "target", "target_us": None, "weight": 1.0}, 10.0, "neither loss.target_us nor latency_budget is set"),
    ],
)
def test_a_loss_that_cannot_work_is_refused_before_training(settings, least, message):
    with pytest.raises(InputError, match=message):
        make_loss(settings, least, 100)


@pytest.mark.parametrize("epochs", [2, 10, 90, 180])
def test_the_last_temperature_is_the_same_at_any_length(epochs):
    assert temperature_at(0, epochs, 5.0, 4.005) == 5.0
    assert temperature_at(epochs - 1, epochs, 5.0, 4.005) == pytest.approx(5.0 * math.exp(-0.045 * 89))
    if epochs == 90:
        assert temperature_at(40, 90, 5.0, 4.005) == pytest.approx(5.0 * math.exp(-0.045 * 40))


@pytest.mark.parametrize(("said", "top_at"), [(None, 1), (0, 0), (2.5, 2.5)])
def test_the_learning_rate_rises_over_a_twentieth_of_the_epochs_or_as_long_as_is_said(said, top_at):
    settings = Settings.of(SETTINGS | {"epochs": 20, "weights": SETTINGS["weights"] | {"warmup_epochs": said}})
    assert settings.rate_at(top_at) == 0.1
    assert settings.rate_at(top_at / 2) == pytest.approx(0.05 if top_at else 0.1)
    assert settings.rate_at((20 + top_at) / 2) == pytest.approx(0.05)


def test_the_learning_rate_falls_by_a_cosine():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for epoch in range(7):
        assert learning_rate_at(epoch, 7, 0.1) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 1}, r"wrong or missing: epoch$"),
        ({"draws_per_batch": 3}, "search.batch_size is 64, but is divided into 3 parts"),
        ({"draws_per_batch": 2, "gpu": 3}, "one must be a multiple"),
        ({"sampling": "single_path", "compile": True}, "set it to false"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Settings.of(SETTINGS | change)


@pytest.fixture(scope="session")
def table(tiny, tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "table.tsv", tiny)


@pytest.fixture(scope="session")
def trained(digits, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "search"
    subprocess.run(train(digits, table, out), check=True, timeout=300, capture_output=True)
    return out


def test_what_a_search_leaves(trained, tiny):
    assert sorted(path.name for path in trained.iterdir()) == [".lock", "history.tsv", "supernet.pt", "tensorboard", "theta.tsv"]
    history = pd.read_csv(trained / "history.tsv", sep="\t")
    columns = "epoch phase loss ce latency_us top1 top5 lr temperature images_per_s seconds"
    assert list(history) == columns.split()
    phases = history.groupby("epoch").phase.agg(" ".join).tolist()
    assert phases == ["weights argmax"] + ["weights theta argmax"] * 3
    learned = history[history.phase == "weights"]
    assert learned.ce.iloc[-1] < learned.ce.iloc[0]
    assert (history.top1 <= history.top5).all()
    assert learned.temperature.tolist() == pytest.approx([temperature_at(epoch, 4, 5.0, 4.005) for epoch in range(4)], rel=1e-4)

    theta = pd.read_csv(trained / "theta.tsv", sep="\t")
    assert list(theta) == ["epoch", "layer", "op", "theta", "probability"]
    assert len(theta) == 4 * 3 * 4
    assert (theta[theta.epoch == 0].theta == 0).all()  # warm-up
    assert theta[theta.epoch == 3].theta.abs().min() > 0
    assert np.allclose(theta.groupby(["epoch", "layer"]).probability.sum(), 1, atol=1e-5)

    supernet = torch.load(trained / "supernet.pt", weights_only=True)
    assert supernet["settings"] == SETTINGS | {"method": "fbnet"}
    assert len(supernet["ops"]) == len(tiny.layers)
    assert set(supernet["code"]) >= {"train_supernet.py", "fbnet/search/search.py", "fbnet/space/operators.py"}
    assert next((trained / "tensorboard").iterdir()).name.startswith("events")


@pytest.mark.parametrize("sampling", ["soft", "single_path"])
@pytest.mark.parametrize("norm", ["gn8", "frozen", "none"])
def test_a_space_whose_candidates_do_not_join_is_searched_too(digits, tmp_path, norm, sampling):
    space = read_space({"base": "tiny", "norm": norm})
    table = read_table(write_table(tmp_path / "table.tsv", space), space, 10)
    settings = SETTINGS | {"sampling": sampling, "epochs": 2, "weights": SETTINGS["weights"] | {"lr": 0.001}}
    search = Search(read_dataset(digits), table, Settings.of(settings), torch.device("cpu"))
    search.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    assert all(theta.abs().max() > 0 for theta in search.result()["theta"])


def test_the_kept_epoch_may_be_the_best(digits, tiny_table, tmp_path):
    search = Search(read_dataset(digits), tiny_table, Settings.of(SETTINGS | {"keep": "best"}), torch.device("cpu"))
    search.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    history = search.history_rows()
    argmax = history[(history.phase == "argmax") & (history.epoch >= 1)].set_index("epoch")
    found = search.result()
    assert found["epoch"] == argmax.loss.idxmin()
    assert found["top1"] == argmax.top1[found["epoch"]]


@pytest.mark.parametrize("sampling", ["soft", "single_path"] if STOPS > 1 else ["single_path"])
def test_stopped_anywhere_it_ends_with_the_same_theta_and_weights(digits, table, tmp_path, sampling):
    """One SIGKILL and one SIGTERM at random moments; with STOPS=10 in the environment ten and three, and soft too."""
    settings = SETTINGS | {"sampling": sampling, "epochs": 12 * STOPS}
    trained, out = tmp_path / "whole", tmp_path / "search"
    subprocess.run(train(digits, table, trained, settings), check=True, timeout=900, capture_output=True)
    rng = random.Random(sampling)
    command = train(digits, table, out, settings, "--checkpoint-minutes", "0.001")
    signals = [signal.SIGKILL] * STOPS + [signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM][: max(1, 3 * STOPS // 10)]
    rng.shuffle(signals)
    for number in signals:
        before = len(read(out.with_suffix(".log")))
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and "Each epoch:" not in read(out.with_suffix(".log"))[before:]:
            time.sleep(0.01)
        time.sleep(0.1 + rng.random() / 2)
        process.send_signal(number)
        assert process.wait() == (-9 if number == signal.SIGKILL else 75)
    subprocess.run(command, check=True, timeout=900, capture_output=True)
    assert "Resuming in epoch" in read(out.with_suffix(".log"))
    assert not list(out.glob("*checkpoint*"))
    whole, resumed = (torch.load(folder / "supernet.pt", weights_only=True) for folder in (trained, out))
    assert all(map(torch.equal, whole["theta"], resumed["theta"]))
    assert whole["weights"].keys() == resumed["weights"].keys()
    assert all(torch.equal(value, resumed["weights"][name]) for name, value in whole["weights"].items())
    assert (out / "theta.tsv").read_bytes() == (trained / "theta.tsv").read_bytes()
    columns = ["epoch", "phase", "loss", "ce", "latency_us", "top1", "top5"]
    histories = [pd.read_csv(folder / "history.tsv", sep="\t")[columns] for folder in (trained, out)]
    pd.testing.assert_frame_equal(*histories)
    # epochs are counted from 1, and a line says the same of each, speed aside, whether it was stopped or not
    pattern = rf"(epoch \d+/{settings['epochs']}): (.*) \|"
    lines, again = (dict(re.findall(pattern, read(folder.with_suffix(".log")))) for folder in (trained, out))
    assert list(lines) == [f"epoch {number}/{settings['epochs']}" for number in range(1, settings["epochs"] + 1)]
    assert again == lines


def test_lines_of_two_searches_in_one_terminal_say_whose_they_are(digits, table, tmp_path):
    names = ["one", "two"]
    with open(tmp_path / "terminal", "w", encoding="utf-8") as terminal:
        searches = [
            subprocess.Popen(train(digits, table, tmp_path / name, SETTINGS | {"epochs": 2}), stderr=terminal) for name in names
        ]
        assert [search.wait(300) for search in searches] == [0, 0]
    lines = read(tmp_path / "terminal").splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d train_supernet (one|two): ", line) for line in lines)
    for name in names:
        own = [line for line in lines if f" {name}: " in line]
        assert re.findall(r"epoch (\d/\d): ", "\n".join(own)) == ["1/2", "2/2"]
        assert [line.replace(f"train_supernet {name}: ", "") for line in own] == read(tmp_path / f"{name}.log").splitlines()


def test_the_test_set_is_not_touched(digits, tiny_table, tmp_path):
    dataset = dataclasses.replace(read_dataset(digits), test_images=None, test_labels=None)
    search = Search(dataset, tiny_table, Settings.of(SETTINGS | {"epochs": 2}), torch.device("cpu"))
    search.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    assert search.epoch == 2


def test_no_more_threads_than_cores_and_no_gpu_where_none_is_wanted(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        assert choose_device(10_000, gpus=0).type == "cpu"
        assert torch.get_num_threads() <= os.cpu_count()
        assert Settings.of(SETTINGS | {"gpu": 0}).parts == 1
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_of_another_run_or_a_broken_one_is_left_unused(tmp_path, caplog):
    path, run = tmp_path / "checkpoint.pt", checkpoint.fingerprint(settings={"alpha": 0.2}, code={"a.py": "1"})
    for epoch in (1, 2, 3):
        checkpoint.save(path, run, {"epoch": epoch})
        assert checkpoint.load(path, run) == {"epoch": epoch}
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.previous.pt", "checkpoint.pt"]
    other = checkpoint.fingerprint(settings={"alpha": 0.3}, code={"a.py": "1"})
    with caplog.at_level("INFO"):
        assert checkpoint.load(path, other) is None
        path.write_bytes(path.read_bytes()[:100])
        assert checkpoint.load(path, run) == {"epoch": 2}  # of the one before
        path.unlink()  # as between the two renames of a save
        assert checkpoint.load(path, run) == {"epoch": 2}
    assert "other settings" in caplog.text
    assert "broken" in caplog.text
    (tmp_path / ".checkpoint.pt.killed.pt").touch()  # as a kill within a save leaves it
    checkpoint.load(path, run)
    assert os.listdir(tmp_path) == ["checkpoint.previous.pt"]
    checkpoint.delete(path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 300}, "only 287 training images are left for theta"),
        ({"loss": {"form": "target", "target_us": 1.0, "weight": 1.0}}, "the loss aims at 1 µs"),
        (
            {"weights": {"lr": 1e30, "momentum": 0.9, "weight_decay": 0.0, "warmup_epochs": 0}},
            "no longer finite in epoch 1/4, phase weights, step 2: lower search.weights.lr; there is no checkpoint yet",
        ),
        ({"theta": {"lr": 1e38, "weight_decay": 0.0}}, "epoch 2/4, phase theta, step 1: lower search.theta.lr; the checkpoint"),
    ],
)
def test_training_that_cannot_work_ends_in_a_sentence(digits, table, tmp_path, change, message):
    done = subprocess.run(train(digits, table, tmp_path / "out", SETTINGS | change), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_want_of_memory_is_a_sentence_with_a_batch_size_that_fits(digits, tiny_table, tmp_path, monkeypatch):
    search = Search(read_dataset(digits), tiny_table, Settings.of(SETTINGS), torch.device("cpu"))
    masks = search.supernet.logits().softmax(1)
    soft, single = (
        bytes_per_image(lambda images, path=path: search.supernet(images, None if path else masks, path), 16, search.device)
        for path in (None, [0, 0, 0])
    )
    assert single < 0.5 * soft
    monkeypatch.setattr("fbnet.training.loop.free_bytes", lambda device: 35 * soft)
    monkeypatch.setattr(
        search.replay, "step", lambda *arguments: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    )
    with pytest.raises(InputError, match="batch_size is 64, which does not fit into the memory of cpu: about 32 would") as error:
        search.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    assert error.value.__context__ is None
