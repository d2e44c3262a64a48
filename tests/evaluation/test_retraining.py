"""Training one network: its schedule, what it is evaluated on, and that it goes on exactly where it was stopped."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from conftest import ROOT, SPACES, write_table
from fbnet.data.dataset import read_dataset
from fbnet.data.image_folder import prepare_image_folder
from fbnet.errors import InputError, Stopped
from fbnet.evaluation.retraining import Training, teaching_weights
from fbnet.latency import read_table
from fbnet.network import Network, cut_out, subnetwork_weights
from fbnet.runtime import StopRequest
from fbnet.search import Search, StochasticSupernet, Supernet
from fbnet.settings import Settings
from fbnet.space import Architecture, read_space
from recipes import OPS, RECIPE, SETTINGS, recipe


def test_the_rate_rises_and_falls():
    settings = recipe(epochs=10, warmup_epochs=2, lr=0.4)
    assert [settings.rate_at(epoch) for epoch in (0.5, 1, 2, 6, 10)] == pytest.approx([0.1, 0.2, 0.4, 0.2, 0.0])
    reference = recipe(epochs=140, warmup_epochs=0, lr=0.1, schedule="steps", drops=[90, 110])
    assert [reference.rate_at(epoch) for epoch in (0, 89.9, 90, 109, 110, 139)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup_epochs": 6}, "train.warmup_epochs is 6, but must be less than train.epochs"),
        ({"momentum": 0}, "needs a momentum"),
        ({"colour": 1}, "wrong or missing: colour$"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        recipe(**change)


def train_here(digits, tiny, tmp_path, dataset=None, weights=None, **changes):
    architecture = Architecture("a", tiny, tuple(OPS.split()), 10)
    training = Training(dataset or read_dataset(digits), architecture, recipe(**changes), torch.device("cpu"), weights)
    training.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    return training


def test_it_learns_and_sees_the_test_set_once_at_the_end(digits, tiny, tmp_path):
    training = train_here(digits, tiny, tmp_path)
    history = training.history_rows()
    assert list(history.groupby("epoch").phase.agg(" ".join)) == ["train validation"] * 5 + ["train validation test"]
    assert history[history.phase == "train"].ce.iloc[-1] < 0.8 * history[history.phase == "train"].ce.iloc[0]
    found = training.result()
    assert found["validation_top1"] > 0.5
    # what is kept is what was evaluated
    dataset = read_dataset(digits)
    network = Network(tiny, OPS.split(), 10)
    network.load_state_dict(found["weights"])
    images = torch.from_numpy(np.array(dataset.test_images)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (dataset.mean, dataset.std))
    with torch.no_grad():
        top1 = (network.eval()((images - mean) / std).argmax(1) == torch.from_numpy(np.array(dataset.test_labels))).float().mean()
    assert top1.item() == pytest.approx(found["test_top1"], abs=1e-6)


def test_no_choice_sees_the_test_set(digits, tiny, tmp_path):
    dataset = read_dataset(digits)
    other = dataclasses.replace(dataset, test_images=255 - dataset.test_images, test_labels=dataset.test_labels[::-1].copy())
    one, two = (
        train_here(digits, tiny, tmp_path / name, data, epochs=2).result() for name, data in (("a", dataset), ("b", other))
    )
    assert all(torch.equal(value, two["weights"][name]) for name, value in one["weights"].items())
    assert one["validation_top1"] == two["validation_top1"]
    assert one["test_top1"] != two["test_top1"]


def test_all_training_runs_leave_the_same_images_out(digits, tiny):
    dataset, architecture = read_dataset(digits), Architecture("a", tiny, tuple(OPS.split()), 10)
    one, two = (Training(dataset, architecture, recipe(seed=seed), torch.device("cpu")) for seed in (0, 1))
    assert np.array_equal(one.validation.indices, two.validation.indices)
    assert not set(one.validation.indices) & set(one.batches["train"].indices)
    weights = [next(training.network.parameters()) for training in (one, two)]
    assert not torch.equal(*weights)


def test_the_average_follows_the_weights(digits, tiny, tmp_path):
    training = train_here(digits, tiny, tmp_path, epochs=2, ema=0.0)
    for average, current in zip(training.average.parameters(), training.network.parameters(), strict=True):
        assert torch.equal(average, current)
    slow = train_here(digits, tiny, tmp_path / "slow", epochs=2, ema=0.999)
    assert not torch.equal(next(slow.average.parameters()), next(slow.network.parameters()))
    # while there are few steps, the average is over few
    first = next(slow.average.parameters()) - next(slow.network.parameters())
    assert first.abs().max() < 0.1


def test_the_loss_is_the_smoothed_cross_entropy(digits, tiny, tmp_path):
    training = Training(
        read_dataset(digits), Architecture("a", tiny, tuple(OPS.split()), 10), recipe(label_smoothing=0.3), torch.device("cpu")
    )
    training.begin()
    images, labels = next(training.batches["train"].training(0))
    loss, ce, logits = training.update(training.batches["train"].normalised(images), labels)
    assert loss.item() == pytest.approx(cross_entropy(logits, labels, label_smoothing=0.3).item(), rel=1e-5)
    assert ce.item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)


def test_a_supernet_s_weights_are_a_start(digits, tiny, tiny_table, tmp_path):
    torch.manual_seed(5)
    supernet = StochasticSupernet(tiny, 10, tiny_table)
    weights = subnetwork_weights(supernet.state_dict(), tiny, OPS.split())
    training = Training(
        read_dataset(digits), Architecture("a", tiny, tuple(OPS.split()), 10), recipe(dropout=0.3), torch.device("cpu"), weights
    )
    assert torch.equal(training.network.stem[0].weight, supernet.stem[0].weight)
    assert training.network.dropout.p == 0.3


TAUGHT = {"teacher": 0.5, "epochs": 2, "label_smoothing": 0.0}


@pytest.fixture(scope="module")
def teaching(tiny):
    """The weights of a supernet."""
    torch.manual_seed(3)
    return Supernet(tiny, 10, shared=True).state_dict()


def taught(digits, tiny, teaching, **changes):
    architecture = Architecture("a", tiny, tuple(OPS.split()), 10)
    return Training(read_dataset(digits), architecture, recipe(**TAUGHT | changes), torch.device("cpu"), None, teaching)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_teacher_s_outputs_are_a_share_of_what_is_learned(digits, tiny, teaching, share):
    training = taught(digits, tiny, teaching, teacher=share)
    training.begin()
    images, labels = next(training.batches["train"].training(0))
    images = training.batches["train"].normalised(images)
    largest = cut_out(teaching, tiny, ["ir_k5_e3"] * 3, 10, training.batches["train"].for_norms())
    with torch.no_grad():
        aims = largest(images).softmax(1)
    before = [parameter.clone() for parameter in training.teacher.state_dict().values()]
    loss, ce, logits = training.update(images, labels)
    assert loss.item() == pytest.approx(((1 - share) * ce + share * cross_entropy(logits, aims)).item(), rel=1e-5)
    assert ce.item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    after = training.teacher.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))  # it does not learn
    assert not any(name.startswith("teacher") for name in training.modules)  # nor does a checkpoint grow by it


def test_a_student_agrees_with_its_teacher(digits, tiny, teaching, tmp_path):
    """Of a teacher that knows nothing it learns that, whatever the labels say."""
    training = taught(digits, tiny, teaching, teacher=1.0, epochs=4)
    training.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    hits = said = 0
    with torch.no_grad():
        for images, _ in training.validation.plain():
            given, learned = training.teacher(images), training.average(images)
            hits += (given.argmax(1) == learned.argmax(1)).sum().item()
            said += cross_entropy(learned, given.softmax(1)).item()
    assert hits > 0.5 * len(training.validation.indices)
    assert training.result()["validation_top1"] < 0.4


def test_a_taught_training_goes_on_exactly_where_it_was_stopped(digits, tiny, teaching, tmp_path):
    whole, first, again = (taught(digits, tiny, teaching) for _ in range(3))
    stop, advance = StopRequest(), first.advance

    def stopping(images, labels):
        advance(images, labels)
        stop.signal = "SIGTERM" if (first.epoch, first.step) == (1, 3) else None

    first.advance = stopping
    whole.run(tmp_path / "whole.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    with pytest.raises(Stopped, match="epoch 2/2, phase train, after step 4"):
        first.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, stop)
    again.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    found, resumed = whole.result(), again.result()
    assert all(torch.equal(value, resumed["weights"][name]) for name, value in found["weights"].items())
    assert found["test_top1"] == resumed["test_top1"]


@pytest.mark.parametrize(
    ("share", "given", "message"),
    [
        (0.5, False, "train.teacher is 0.5, but no supernet is given to teach"),
        (0, True, "train.teacher is 0, but a supernet is given to teach"),
    ],
)
def test_a_teacher_is_asked_for_and_given_or_neither(digits, tiny, teaching, share, given, message):
    with pytest.raises(InputError, match=message):
        taught(digits, tiny, teaching if given else None, teacher=share)


def test_only_a_supernet_whose_largest_network_knows_the_labels_teaches(tiny, teaching, tmp_path):
    architecture, digits = Architecture("a", tiny, tuple(OPS.split()), 10), [str(digit) for digit in range(10)]

    def supernet(**changes):
        given = {
            "weights": teaching,
            "theta": [],
            "space": tiny.definition,
            "classes": digits,
            "settings": {"method": "one_shot"},
        }
        torch.save(given | changes, tmp_path / "supernet.pt")
        return tmp_path / "supernet.pt"

    assert teaching_weights(supernet(), architecture, digits).keys() == teaching.keys()
    for changes, message in (
        ({"settings": {"method": "fbnet"}}, "is not of method one_shot"),
        ({"classes": digits[::-1]}, "is of another space or of other classes"),
        ({"space": tiny.definition | {"dropout": 0.5}}, "is of another space or of other classes"),
    ):
        with pytest.raises(InputError, match=message):
            teaching_weights(supernet(**changes), architecture, digits)


def command(digits, out, *options):
    return [
        *(sys.executable, str(ROOT / "workflow/scripts/train_architecture.py"), "--ops", OPS, "--name", "a"),
        *("--space", str(SPACES / "tiny.yaml"), "--data", str(digits), "--settings", json.dumps(RECIPE), "--threads", "1"),
        *("--out", str(out), "--log", str(out.with_suffix(".log")), *options),
    ]


def test_stopped_and_killed_it_ends_with_the_same_weights(digits, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "network"
    subprocess.run(command(digits, whole), check=True, timeout=300, capture_output=True)
    again = command(digits, out, "--checkpoint-minutes", "0.001")
    log = out.with_suffix(".log")
    for number in (signal.SIGKILL, signal.SIGTERM):
        seen = len(log.read_text(encoding="utf-8")) if log.exists() else 0
        process = subprocess.Popen(again, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and (not log.exists() or "Each epoch:" not in log.read_text(encoding="utf-8")[seen:]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == (-9 if number == signal.SIGKILL else 75)
    subprocess.run(again, check=True, timeout=300, capture_output=True)
    assert "Resuming in epoch" in log.read_text(encoding="utf-8")
    first, second = (torch.load(folder / "network.pt", weights_only=True) for folder in (whole, out))
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    assert first["test_top1"] == second["test_top1"]
    columns = ["epoch", "phase", "loss", "ce", "top1", "top5"]
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "history.tsv", sep="\t")[columns] for folder in (whole, out)))
    assert sorted(path.name for path in out.iterdir()) == [".lock", "history.tsv", "network.pt", "tensorboard"]


def test_photographs_are_learned_by_random_parts_and_told_by_their_middle(tmp_path):
    """Files to accuracy at 224²: what tells the classes is the colour of the middle; the frame is noise."""
    rng = np.random.default_rng(0)
    for half, count in (("train", 24), ("test", 8)):
        for number, name in enumerate(("red", "blue")):
            (tmp_path / "images" / half / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
                pixels[60:240, 100:300] = pixels[60:240, 100:300] // 4
                pixels[60:240, 100:300, 2 * number] += 150
                Image.fromarray(pixels).save(tmp_path / f"images/{half}/{name}/{index}.jpg")
    space = read_space({"base": "tiny", "resolution": 224})
    prepare_image_folder(tmp_path / "data", tmp_path / "images", space.resolution)
    dataset, device, stop = read_dataset(tmp_path / "data", 224), torch.device("cpu"), StopRequest()
    assert dataset.train_images.shape == (48, 256, 256, 3)
    augment = {"crop": "auto", "crop_padding": 4, "least_area": 0.3, "flip": True, "jitter": 0.1, "erasing": 0.2}
    settings = Settings.of(SETTINGS | {"batch_size": 8, "augment": augment, "epochs": 2})
    table = read_table(write_table(tmp_path / "table.tsv", space, classes=2), space, 2)
    search = Search(dataset, table, settings, device)
    search.run(tmp_path / "search.pt", "run", tmp_path / "search", 10, stop)
    architecture = Architecture("found", space, tuple(search.result()["ops"]), 2)
    training = Training(dataset, architecture, recipe(batch_size=8, epochs=6, augment=augment), device)
    training.run(tmp_path / "training.pt", "run", tmp_path / "training", 10, stop)
    assert training.result()["test_top1"] > 0.9
