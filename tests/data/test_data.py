"""Datasets: prepared from what is on this machine; every fault ends in a retry or a sentence, and leaves nothing half there."""

import functools
import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_shared
from fbnet.data import dataset_classes
from fbnet.data.dataset import FILES, read_dataset
from fbnet.data.image_folder import prepare_image_folder
from fbnet.errors import InputError


def batch_rows(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count).tolist()


def python_layout():
    """Files of a small CIFAR-10 in the official python layout."""
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows, labels = batch_rows(20, seed)
        yield f"cifar-10-batches-py/{name}", pickle.dumps({"data": rows, "labels": labels, "filenames": ["x"]}, protocol=2)
    yield "cifar-10-batches-py/batches.meta", pickle.dumps({"label_names": ["airplane"]}, protocol=2)


def binary_layout():
    """The same images in the official binary layout."""
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows, labels = batch_rows(20, seed)
        content = np.concatenate([np.array(labels, np.uint8)[:, None], rows], axis=1).tobytes()
        yield f"cifar-10-batches-bin/{name}.bin", content


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def prepare(script, tmp_path):
    return functools.partial(script, "download_cifar", "--out", tmp_path / "data/cifar10", "--name")


def refused(done, folder, message):
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists() or not any(folder.iterdir())


def test_both_layouts_give_the_same_dataset_from_archive_or_folder(prepare, tmp_path):
    found = {}
    for layout in (python_layout, binary_layout):
        path = tmp_path / f"{layout.__name__}.tar.gz"
        path.write_bytes(archive(layout()))
        unpacked = tmp_path / layout.__name__
        unpacked.mkdir()
        for name, content in layout():
            (unpacked / name.rpartition("/")[2]).write_bytes(content)
        for option, source in (("--archive", path), ("--folder", unpacked)):
            done = prepare("cifar10", option, source)
            assert done.returncode == 0, done.stderr
            found[layout, option] = read_dataset(tmp_path / "data/cifar10")
    for dataset in found.values():
        for number in range(5):
            rows, labels = batch_rows(20, number)
            part = slice(20 * number, 20 * number + 20)
            assert np.array_equal(dataset.train_images[part].transpose(0, 3, 1, 2).reshape(20, 3072), rows)
            assert dataset.train_labels[part].tolist() == labels
        assert len(dataset.test_labels) == 20
        pixels = dataset.train_images.reshape(-1, 3) / 255
        assert np.allclose(dataset.mean, pixels.mean(0), atol=1e-5)
        assert np.allclose(dataset.std, pixels.std(0), atol=1e-5)


class Hostile:
    def __reduce__(self):
        return print, ("executed",)


def corrupt(**changes):
    return archive((name, changes.get(name.rpartition("/")[2], content)) for name, content in python_layout())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(python_layout())[:20_000], "is truncated or broken"),
        (b"no archive", "is truncated or broken"),
        (archive([*python_layout(), ("../evil", b"x")]), "is refused"),
        (archive([("/evil", b"x"), ("a/../../evil", b"x"), *python_layout()]), "is refused"),
        (archive(list(python_layout())[1:]), "it lacks data_batch_1"),
        (corrupt(test_batch=b"\x80\x02garbage"), "test_batch of"),
        (corrupt(data_batch_2=pickle.dumps({"data": Hostile(), "labels": []})), "asks for builtins.print"),
        (corrupt(data_batch_2=pickle.dumps({"data": np.zeros((2, 3)), "labels": [1, 2]})), "data_batch_2 of"),
        (
            corrupt(data_batch_2=pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]})),
            "there are 10 classes",
        ),
    ],
    ids=["cut", "no archive", "outside", "outside and absolute", "lacks a batch", "no pickle", "hostile", "shape", "label"],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(prepare, tmp_path, content, message):
    (tmp_path / "bad.tar.gz").write_bytes(content)
    done = prepare("cifar10", "--archive", tmp_path / "bad.tar.gz")
    refused(done, tmp_path / "data/cifar10", message)
    assert "executed" not in done.stdout
    assert not list(tmp_path.rglob("evil"))


def test_a_dataset_that_changed_or_is_not_whole_is_refused(prepare, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(archive(python_layout()))
    assert prepare("cifar10", "--archive", tmp_path / "a.tar.gz").returncode == 0
    folder = tmp_path / "data/cifar10"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    labels = np.load(folder / "train_labels.npy")
    np.save(folder / "train_labels.npy", labels[::-1])
    with pytest.raises(InputError, match=r"train_labels\.npy has changed"):
        read_dataset(folder)
    (folder / "train_labels.npy").unlink()
    with pytest.raises(InputError, match="no whole dataset"):
        read_dataset(folder)


def test_digits_are_scikit_learn_s(script, tmp_path):
    done = script("download_cifar", "--name", "digits", "--resolution", 32, "--out", tmp_path / "digits")
    assert done.returncode == 0, done.stderr
    dataset = read_dataset(tmp_path / "digits")
    assert dataset.train_images.shape == (1437, 32, 32, 3)
    assert dataset.test_images.shape == (360, 32, 32, 3)
    assert np.bincount(dataset.test_labels).min() >= 34


def image_folder(folder, classes=("cat", "dog", "eel"), splits=("train", "test")):
    for split_name in splits:
        for shade, name in enumerate(classes):
            (folder / split_name / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (40 + number, 30), (80 * shade, 0, 0)).save(folder / split_name / name / f"{number}.png")
    return folder


def test_an_image_folder_of_any_number_of_classes(script, tmp_path):
    folder = image_folder(tmp_path / "my images")
    (folder / "train/cat/notes.txt").write_text("no image", encoding="utf-8")
    done = script("download_cifar", "--name", "image_folder", "--folder", folder, "--resolution", 24, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    dataset = read_dataset(tmp_path / "out")
    assert dataset.classes == ("cat", "dog", "eel")
    assert dataset_classes({"name": "image_folder", "folder": str(folder)}) == 3
    assert dataset.train_images.shape == (9, 24, 24, 3)
    assert dataset.train_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert (dataset.train_images[dataset.train_labels == 2][..., 0] == 160).all()


def make_class(folder, name, splits=("train", "test")):
    for split_name in splits:
        (folder / split_name / name).mkdir()


def nested(folder):
    for split_name in ("train", "test"):
        (folder / split_name).rename(folder / "inner")
        (folder / split_name).mkdir()
        (folder / "inner").rename(folder / split_name / split_name)


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (
            lambda folder: [(folder / f"{half}/dog/0.png").write_bytes(b"no") for half in ("train", "test")],
            [r"unreadable images \(2\): .*/train/dog/0.png \(.*, .*/test/dog/0.png \(.*: replace or delete them"],
        ),
        (
            lambda folder: [file.write_bytes(b"no") for half in ("train", "test") for file in (folder / half / "dog").iterdir()],
            [r"unreadable images \(6\): .*/train/dog/0.png .*/test/dog/2.png"],
        ),
        (lambda folder: make_class(folder, "fox"), ["train/fox holds no image"]),
        (
            lambda folder: (make_class(folder, "fox"), (folder / "train/fox/0.HEIC").write_bytes(b"x")),
            ["train/fox holds no image: 1 × .heic"],
        ),
        (
            lambda folder: (folder / "test/eel").rename(folder / "test/ant"),
            ["train/ has no folder for ant, but test/ has; test/ has no folder for eel, but train/ has"],
        ),
        (lambda folder: (folder / "test").rename(folder / "val"), ["there is no test/, but val/: rename it"]),
        (lambda folder: (folder / "test").rename(folder / "tests"), ["there is no test/"]),
        (nested, ["train/ holds train/ and no class: that is a folder too many; test/ holds test/"]),
        (
            lambda folder: [shutil.rmtree(folder / half / name) for half in ("train", "test") for name in ("dog", "eel")],
            ["cat is the only class"],
        ),
    ],
    ids=["broken", "all broken", "empty", "heic", "classes", "val", "tests", "nested", "one class"],
)
def test_a_bad_image_folder_is_a_sentence(tmp_path, spoil, messages):
    spoil(image_folder(tmp_path / "images"))
    for message in messages:
        with pytest.raises(InputError, match=message) as refused:
            prepare_image_folder(tmp_path / "out", tmp_path / "images", 24)
        assert len(str(refused.value).splitlines()) == 1
    assert not list((tmp_path / "out").glob("*"))


def test_images_are_taken_in_as_they_are_looked_at(tmp_path):
    """A phone's photograph upright, sixteen bits scaled and not cut off, whatever its mode."""
    folder = image_folder(tmp_path / "images", classes=("cat", "dog"))
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[:32], upright[32:] = (255, 0, 0), (0, 0, 255)
    lying = Image.fromarray(np.rot90(upright).copy())
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(folder / "train/cat/phone.jpg", exif=exif, quality=95)
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(ramp).save(folder / f"train/cat/xray.{suffix}")
    prepare_image_folder(tmp_path / "out", folder, 16)
    images = read_dataset(tmp_path / "out").train_images  # by name: 0.png, 1.png, 2.png, phone.jpg, xray.png, xray.tif, ...
    phone, *xrays = images[3:6].astype(int)
    assert (np.abs(phone[:6] - (255, 0, 0)) < 12).all()
    assert (np.abs(phone[-6:] - (0, 0, 255)) < 12).all()
    for xray in xrays:
        assert np.abs(xray.mean() - 127.5) < 1
        assert xray[0].mean() < 16 < 239 < xray[-1].mean()
    Image.fromarray(ramp.astype(np.int32) * 1000).save(folder / "train/cat/deep.tif")
    with pytest.raises(InputError, match=r"deep.tif \(its pixels have 32 bits: convert it to 8 or 16\)"):
        prepare_image_folder(tmp_path / "again", folder, 16)


def test_what_is_no_image_is_left_out_and_said(tmp_path, caplog):
    folder = image_folder(tmp_path / "images", classes=("Äpfel", "Birnen"))
    (folder / "test/Äpfel").rename(folder / "test" / unicodedata.normalize("NFD", "Äpfel"))
    for path in list(folder.rglob("*.png")):
        path.with_name(f"._{path.name}").write_bytes(b"Mac")
    for number in range(20):
        (folder / f"train/Birnen/{number}.HEIC").write_bytes(b"x")
    for half in ("train", "test"):
        (folder / half / ".thumbnails").mkdir()
    (folder / "train/Birnen/more").mkdir()
    for shade, name in enumerate(("Birnen", "Äpfel")):
        for file in (folder / "train" / name).glob("[0-9].png"):
            Image.new("RGB", (40, 30), (80 * shade, 0, 0)).save(file)
    (folder / "train/Birnen/0.png").rename(folder / "train/Birnen/more/0.png")
    (folder / "train/Birnen/1.png").write_bytes((folder / "train/Birnen/1.png").read_bytes()[:60])
    with caplog.at_level("INFO"):
        prepare_image_folder(tmp_path / "out", folder, 16, broken="skip")
    dataset = read_dataset(tmp_path / "out")
    assert dataset.classes == ("Birnen", "Äpfel")
    assert sorted(dataset.train_labels.tolist()) == [0] * 2 + [1] * 3  # the last image has the place of the broken one
    assert (dataset.train_images == 80 * dataset.train_labels[:, None, None, None] * np.array([1, 0, 0])).all()
    assert dataset.test_labels.tolist() == [0] * 3 + [1] * 3
    [skipped] = json.loads((tmp_path / "out/dataset.json").read_text(encoding="utf-8"))["source"]["skipped"]
    assert "train/Birnen/1.png (" in skipped
    for text in (
        "train: files that are no images we can read were left out: 20 × .heic, 6 × hidden.",
        "train: Birnen has folders of its own; what is in them counts to it.",
        "Unreadable images were left out (1): ",
        "train: images by class: Birnen 2, Äpfel 3.",
        "train: fewer than 10 images of Birnen, Äpfel",
    ):
        assert text in caplog.text


@needs_shared
def test_the_real_cifar10_has_its_known_statistics(script, tmp_path):
    tool = SHARED / "tools/make_cifar10.py"
    subprocess.run([sys.executable, tool, "--per-class", "300", "--out", tmp_path], check=True, capture_output=True)
    done = script(
        "download_cifar", "--name", "cifar10", "--archive", tmp_path / "cifar-10-python.tar.gz", "--out", tmp_path / "c"
    )
    assert done.returncode == 0, done.stderr
    dataset = read_dataset(tmp_path / "c")
    assert np.allclose(dataset.mean, (0.4914, 0.4822, 0.4465), atol=0.01)
    assert np.allclose(dataset.std, (0.2470, 0.2435, 0.2616), atol=0.01)  # the reference's 0.2023, ... are wrong
    assert np.bincount(dataset.train_labels).tolist() == [300] * 10
    assert json.loads((tmp_path / "c/dataset.json").read_text(encoding="utf-8"))["train"] == 3000
