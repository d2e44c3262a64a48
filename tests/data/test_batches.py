"""Batches: what is in them, in which order, and that their augmentation is the usual one."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from fbnet.data.batches import Batches, split
from fbnet.data.dataset import ARRAYS, _statistics, read_dataset, writing

CPU = torch.device("cpu")
SCRIPTS = ROOT / "workflow/scripts"


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    with writing(tmp_path / "d", "noise", ["a", "b"], {}) as paths:
        for name in ARRAYS:
            if name.endswith("images"):
                np.save(paths[name], rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8))
            else:
                np.save(paths[name], np.arange(50) % 2)
    return read_dataset(tmp_path / "d")


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_the_parts_are_disjoint_and_keep_the_shares_of_the_classes(counts, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = split(labels, share, seed)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for number, count in enumerate(counts):
        assert min((labels[part] == number).sum() for part in parts) >= min(count // 2, 1)
    if min(counts) >= 2 / min(share, 1 - share):  # nothing is forced to either side
        assert len(parts[0]) == round(len(labels) * share)
        assert all(abs((labels[parts[0]] == number).sum() - count * share) < 1 for number, count in enumerate(counts))


def test_another_seed_is_another_split_and_rare_classes_are_in_both():
    labels = np.repeat([0, 1], [60, 3])
    weights, theta = split(labels, 0.8, seed=5)
    assert (len(weights), np.bincount(labels[theta]).tolist()) == (50, [12, 1])
    assert split(labels, 0.8, seed=6)[0].tolist() != weights.tolist()


def joined(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_training_batches_are_a_permutation_that_follows_from_the_seed(dataset):
    indices = np.arange(5, 45)
    batches = Batches(dataset, indices, 10, CPU)
    images, labels = joined(batches.training(1))
    assert torch.equal(images, joined(batches.training(1))[0])
    assert not torch.equal(images, joined(batches.training(2))[0])
    keys = [image.tobytes() for image in dataset.train_images]
    order = [keys.index(image.numpy().tobytes()) for image in images]
    assert sorted(order) == list(range(5, 45))
    assert labels.tolist() == dataset.train_labels[order].tolist()
    assert len(Batches(dataset, np.arange(50), 20, CPU)) == 2  # the last, smaller batch is left out


def test_a_set_that_streams_gives_the_same_batches(dataset):
    resident, streamed = (Batches(dataset, np.arange(3, 50), 10, CPU, resident) for resident in (True, False))
    for start in (0, 2):
        for ours, theirs in zip(joined(resident.training(7, start)), joined(streamed.training(7, start)), strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(joined(resident.plain())[0], joined(streamed.plain())[0])


def test_a_set_streams_without_shared_memory(dataset, tmp_path):
    """As in a container, whose /dev/shm is small."""
    code = (
        "import sys, numpy as np, torch; from pathlib import Path; from fbnet.data.batches import Batches;"
        "from fbnet.data.dataset import read_dataset\n"
        "batches = Batches(read_dataset(Path(sys.argv[1])), np.arange(50), 5, torch.device('cpu'), resident=False)\n"
        "print(sum(len(images) for images, _ in batches.training(0)))"
    )
    small = 'mount -t tmpfs -o size=4k tmpfs /dev/shm || exit 77; exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", small, "sh", sys.executable, "-c", code, tmp_path / "d"]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(SCRIPTS)})
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.stdout == "50\n", done.stderr


def test_it_goes_on_in_the_middle_and_is_shared_among_processes(dataset):
    batches = Batches(dataset, np.arange(50), 10, CPU)
    whole = list(batches.training(3))
    rest = list(batches.training(3, start=2))
    assert len(rest) == 3
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(rest, whole[2:], strict=True))
    shares = [Batches(dataset, np.arange(50), 10, CPU, part=part) for part in (slice(0, 5), slice(5, 10))]
    augmented = []
    for share in (batches, *shares):
        images, _ = next(share.training(3))
        torch.manual_seed(0)
        augmented.append(share.augmented(images, 2, True))
    assert torch.equal(augmented[0], torch.cat(augmented[1:]))


def test_images_are_normalised(dataset):
    images, labels = next(Batches(dataset, np.arange(50), 50, CPU).plain())
    assert images.shape == (50, 3, 8, 8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(images.std((0, 2, 3)), torch.ones(3), atol=1e-3)
    assert labels.tolist() == dataset.train_labels.tolist()


def test_the_statistics_of_a_large_set_are_of_evenly_spaced_images(dataset, monkeypatch):
    exact = _statistics(dataset.train_images)
    monkeypatch.setattr("fbnet.data.dataset.COUNTED", 10)
    assert _statistics(dataset.train_images) == _statistics(dataset.train_images[::5]) != exact
    monkeypatch.setattr("fbnet.data.dataset.AT_ONCE", 1)
    assert _statistics(dataset.train_images) == _statistics(dataset.train_images[::5])
