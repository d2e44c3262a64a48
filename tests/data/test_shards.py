"""Image folders as arrays: by several processes, stopped and killed wherever it may be, and whatever a folder holds."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import ROOT, wait_for
from fbnet.data import shards
from fbnet.data.dataset import FILES, read_dataset
from fbnet.data.image_folder import prepare_image_folder
from fbnet.errors import InputError, Stopped
from fbnet.exclusive import alone
from fbnet.runtime import StopRequest


def noise_folder(folder, count, side):
    """Images of noise, one of two classes in each half, so that no two are alike."""
    rng = np.random.default_rng(0)
    for half, number in (("train", count), ("test", 4)):
        for name in ("a", "b"):
            (folder / half / name).mkdir(parents=True)
        for index in range(number):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / half / "ab"[index % 2] / f"{index}.png", compress_level=0)
    return folder


def files_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES if name.endswith("npy")}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(shards, "IMAGES", 8)


def test_what_is_done_when_it_is_stopped_is_not_done_again(few, tmp_path, monkeypatch):
    folder = noise_folder(tmp_path / "images", 40, 8)
    (folder / "train/a/4.png").write_bytes(b"no image")
    prepare_image_folder(tmp_path / "whole", folder, 8, "skip")
    read, usual = [], shards.fitted

    def stopped_at(count, stop):
        def fitted(name, size):
            read.append(name)
            if len(read) == count:
                stop()
            return usual(name, size)

        monkeypatch.setattr(shards, "fitted", fitted)

    def killed():
        raise KeyboardInterrupt

    stopped_at(10, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match=r"Stopped by SIGTERM after 16 of 40 images of train_images; they are kept"):
        prepare_image_folder(tmp_path / "out", folder, 8)
    stopped_at(16 + 12, killed)  # within the fourth shard
    with pytest.raises(KeyboardInterrupt):
        prepare_image_folder(tmp_path / "out", folder, 8)
    with (tmp_path / "out/.preparing/train_images.done").open("a", encoding="utf-8") as notes:
        notes.write('["half a li')
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".preparing"]
    stopped_at(0, killed)
    (folder / "train/b/1.png").touch()  # of the first half of b, which is done again
    with pytest.raises(InputError, match=r"unreadable images \(1\): .*/4.png"):
        prepare_image_folder(tmp_path / "out", folder, 8)
    assert len(read) == 28 + (40 - 24) + 8 + 4
    prepare_image_folder(tmp_path / "out", folder, 8, "skip")
    assert len(read) == 28 + (40 - 24) + 8 + 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_an_image_from_the_end_takes_the_place_of_a_broken_one(few, tmp_path):
    folder = noise_folder(tmp_path / "images", 30, 8)
    broken = {"train/a/0.png", "train/a/20.png", "train/b/29.png", "train/b/3.png"}
    for name in broken:
        (folder / name).write_bytes(b"no image")
    prepare_image_folder(tmp_path / "out", folder, 8, "skip")
    dataset = read_dataset(tmp_path / "out")
    found = {(image.tobytes(), label) for image, label in zip(dataset.train_images, dataset.train_labels.tolist(), strict=True)}
    there = [path for path in (folder / "train").rglob("*.png") if path.relative_to(folder).as_posix() not in broken]
    assert found == {(np.asarray(Image.open(path)).tobytes(), "ab".index(path.parent.name)) for path in there}
    assert len(dataset.train_labels) == 26


def preparing(folder, out):
    """The program, with two processes that read, and its notes of what is done."""
    command = ["download_cifar.py", "--name", "image_folder", "--folder", folder, "--resolution", "8", "--threads", "2"]
    command = [sys.executable, ROOT / "workflow/scripts" / command[0], *command[1:], "--out", out]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def noted(notes):
    """How many shards are done."""
    return notes.read_text(encoding="utf-8").count("\n") if notes.exists() else 0


def test_two_processes_that_are_stopped_and_killed_make_what_one_makes(tmp_path):
    folder, out = noise_folder(tmp_path / "images", 2200, 80), tmp_path / "out"
    prepare_image_folder(tmp_path / "whole", folder, 8)
    notes = out / ".preparing/train_images.done"
    outcomes = {
        "a child is killed": (1, r"a process that reads images was killed, most likely for want of memory"),
        "SIGTERM": (75, r"Stopped by SIGTERM after \d+ of 2200 images"),
        "SIGKILL": (-9, r""),
    }
    for what, (code, said) in outcomes.items():
        program = preparing(folder, out)
        before = noted(notes)
        while noted(notes) == before:
            assert program.poll() is None, program.stderr.read()
            time.sleep(0.002)
        children = [child for child in psutil.Process(program.pid).children() if "spawn_main" in " ".join(child.cmdline())]
        for child in children:  # the rest is not done before we have acted
            child.suspend()
        assert len(children) == 2, what
        if what.startswith("SIG"):
            program.send_signal(signal.Signals[what])
        else:
            children.pop().kill()
        for child in children:
            child.resume()
        assert program.wait(60) == code, what
        assert re.search(said, program.stderr.read()), what
        assert not psutil.wait_procs(children, timeout=20)[1], what
    assert files_of(tmp_path / "whole").keys().isdisjoint(os.listdir(out))
    last = preparing(folder, out)
    assert last.wait(60) == 0, last.stderr.read()
    assert files_of(out) == files_of(tmp_path / "whole")
    assert sorted(os.listdir(out)) == sorted(FILES)


def test_a_disk_without_the_room_is_a_sentence_before_any_image_is_read(tmp_path, monkeypatch):
    folder = noise_folder(tmp_path / "images", 6, 8)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(shards, "fitted", None)
    with pytest.raises(OSError, match=r"No space left on device: the images take 0.0 GB: .*train_images.npy"):
        prepare_image_folder(tmp_path / "out", folder, 8)
    assert not os.listdir(tmp_path / "out")


def test_who_waits_for_another_takes_what_that_has_made(few, tmp_path, caplog):
    folder, out = noise_folder(tmp_path / "images", 20, 8), tmp_path / "out"
    begun, results = threading.Event(), []

    def second():
        program = preparing(folder, out)
        begun.set()
        results.append((program.wait(60), program.stderr.read()))

    with StopRequest() as stop, alone(out / ".preparing", stop):
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        wait_for(lambda: (out / ".preparing").exists() and _is_waited_for(out / ".preparing/.lock"))
        made = tmp_path / "made"
        done = preparing(folder, made)
        assert done.wait(60) == 0
        for name in FILES:
            (made / name).replace(out / name)
        shutil.rmtree(out / ".preparing")
    thread.join()
    [(code, said)] = results
    assert code == 0, said
    assert "is in use" in said
    assert "whoever we waited for has made it" in said
    assert sorted(os.listdir(out)) == sorted(FILES)


def _is_waited_for(lock):
    """Whether a second process has this file open."""
    others = (process for process in psutil.Process().children(recursive=True))
    return any(str(lock) == file.path for process in others for file in process.open_files())


# Whatever a folder holds

COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 240)]
NAMES = ["cat", "Äpfel", "a b", "日本", "x.png", "quo'te"]
GOOD = {"png": ("RGB", "RGBA", "P"), "jpg": ("RGB", "CMYK"), "bmp": ("RGB",), "gif": ("P",), "webp": ("RGB",), "TIFF": ("RGB",)}
good = st.sampled_from([(suffix, mode) for suffix, modes in GOOD.items() for mode in modes]).flatmap(
    lambda kind: st.tuples(st.just("good"), st.just(kind), st.tuples(st.integers(1, 40), st.integers(1, 40)))
)
bad = st.tuples(st.just("bad"), st.sampled_from(["empty.png", "text.jpg", "cut.png", "folder.png/", "loop.png"]), st.none())
aside = st.tuples(
    st.just("aside"), st.sampled_from([".hidden.png", "notes.txt", "phone.HEIC", ".folder/x.png", "none"]), st.none()
)
classes = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.one_of(good, good, good, aside, bad), max_size=4), min_size=0, max_size=3
)


def write(folder, name, number, file):
    """One file of a class, in the colour of the class."""
    kind, what, size = file
    if kind == "good":
        suffix, mode = what
        image = Image.new("RGB", size, COLOURS[NAMES.index(name) % 4]).convert(mode)
        image.save(folder / f"{number}.{suffix}")
        return
    path = folder / f"{number}{what}" if not what.startswith(".") else folder / what
    if what.endswith("/"):
        path.mkdir()
    elif what == "loop.png":
        path.symlink_to(path)
    else:
        path.parent.mkdir(exist_ok=True)
        whole = Path(folder / "whole.png")
        Image.new("RGB", (30, 30)).save(whole)
        path.write_bytes({"cut.png": whole.read_bytes()[:50], "empty.png": b""}.get(what, b"some text"))
        whole.unlink()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    halves=st.fixed_dictionaries({"train": classes, "test": classes}), same=st.booleans(), skip=st.booleans(), nfd=st.booleans()
)
def test_any_image_folder_is_prepared_right_or_refused_in_a_sentence(halves, same, skip, nfd):
    if same:  # otherwise hardly any two halves agree
        halves["test"] = {name: halves["test"].get(name, files) for name, files in halves["train"].items()}
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "images"), Path(place, "out")
        for half, by_class in halves.items():
            for name, files in by_class.items():
                spelt = unicodedata.normalize("NFD" if nfd and half == "test" else "NFC", name)
                (folder / half / spelt).mkdir(parents=True)
                for number, file in enumerate(files):
                    write(folder / half / spelt, name, number, file)
        broken = [what for files in halves.values() for by in files.values() for kind, what, _ in by if _is_broken(kind, what)]
        counts = {
            half: {name: sum(file[0] == "good" for file in files) for name, files in by_class.items()}
            for half, by_class in halves.items()
        }
        usable = len(counts["train"]) > 1 and counts["train"].keys() == counts["test"].keys()
        usable = usable and all(count for by_class in counts.values() for count in by_class.values())
        try:
            prepare_image_folder(out, folder, 8, "skip" if skip else "refuse")
        except InputError as error:
            assert not usable or (broken and not skip)
            [sentence] = str(error).splitlines()
            if usable:
                assert f"unreadable images ({len(broken)})" in sentence
                assert all(what in sentence for what in broken)
            assert not out.exists() or not os.listdir(out)
            return
        assert usable
        assert skip or not broken
        assert sorted(os.listdir(out)) == sorted(FILES)
        dataset = read_dataset(out)
        assert dataset.classes == tuple(sorted(counts["train"]))
        for half, images, labels in (
            ("train", dataset.train_images, dataset.train_labels),
            ("test", dataset.test_images, dataset.test_labels),
        ):
            assert dict(zip(dataset.classes, np.bincount(labels), strict=True)) == counts[half]
            for image, label in zip(images, labels, strict=True):
                colour = COLOURS[NAMES.index(dataset.classes[label]) % 4]
                assert np.abs(image.astype(int) - colour).max() < 60


def _is_broken(kind, what):
    return kind == "bad" and not what.endswith("/")
