"""Where datasets come from: CIFAR-10 over HTTP or from disk, scikit-learn's digits, a folder of images."""

import hashlib
import io
import logging
import pickle
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
import pooch
import requests
from PIL import Image, ImageOps, UnidentifiedImageError

from fbnet.dataset import writing
from fbnet.errors import InputError
from fbnet.provenance import file_hash
from fbnet.runtime import Progress, log

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR10_BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
RETRIES = 4
TIMEOUT_S = 30


def download(url: str, checksum: str | None, folder: Path) -> Path:
    """Fetch a file over HTTP(S) into `folder`, unless it is there already, and verify it ("md5:…" or "sha256:…").

    A broken connection or a wrong checksum starts again, up to RETRIES times. Raises InputError after that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.glob("tmp*"):
        left_by_a_kill.unlink()
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{PurePosixPath(urlsplit(url).path).name}"
    pooch_log = pooch.get_logger()
    pooch_log.handlers, pooch_log.parent, pooch_log.propagate = [], logging.getLogger(log.name), True
    fetcher = pooch.create(
        folder, base_url="", registry={name: checksum}, urls={name: url}, retry_if_failed=RETRIES, allow_updates=True
    )
    bar = Progress(unit="B", unit_scale=True, desc="download", total=0)
    try:
        path = fetcher.fetch(name, downloader=pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_S))
    except requests.RequestException as error:
        raise InputError(
            f"dataset.url {url} could not be downloaded in {RETRIES + 1} tries ({type(error).__name__}: {error}): "
            f"check the address and the network, or name a local copy as dataset.archive"
        ) from None
    except ValueError as error:
        raise InputError(
            f"what dataset.url {url} gives has another checksum than dataset.checksum: {error} "
            f"Give the right checksum, or another address"
        ) from None
    finally:
        bar.close()
    log.info("Downloaded %s: %s has the right checksum (%s).", url, name, checksum or "none was asked for")
    return Path(path)


def check_archive(path: Path, checksum: str | None) -> None:
    """Raise InputError unless a local archive has this checksum."""
    if checksum:
        algorithm, _, digest = checksum.partition(":")
        found = file_hash(path, algorithm)
        if found != digest.lower():
            raise InputError(
                f"dataset.archive {path} has the {algorithm} {found}, but dataset.checksum is {digest}: "
                f"name another archive, or set the checksum to what you expect (null checks nothing)"
            )


def prepare_cifar10(out: Path, archive: Path | None, folder: Path | None, source: dict) -> None:
    """CIFAR-10 from its archive or unpacked folder, in the python or the binary layout. Raises InputError."""
    files = _archive_files(archive) if archive else _folder_files(folder)
    where = archive or folder
    missing = [name for name in CIFAR10_BATCHES if name not in files and f"{name}.bin" not in files]
    if missing:
        raise InputError(f"{where} is no CIFAR-10 in the python or binary layout: it lacks {', '.join(missing)}")
    batches = [_cifar10_batch(name, files, where) for name in CIFAR10_BATCHES]
    with writing(out, "cifar10", CIFAR10, source) as paths:
        for split, parts in (("train", batches[:-1]), ("test", batches[-1:])):
            np.save(paths[f"{split}_images"], np.concatenate([images for images, _ in parts]))
            np.save(paths[f"{split}_labels"], np.concatenate([labels for _, labels in parts]))


def _archive_files(path: Path) -> dict[str, bytes]:
    """The batch files of an archive by base name, read without unpacking; a member that would leave the folder is refused."""
    files = {}
    try:
        with tarfile.open(path) as tar:
            for member in Progress(tar, desc="unpack", unit="file"):
                member_path = PurePosixPath(member.name)
                if member_path.is_absolute() or ".." in member_path.parts or not (member.isfile() or member.isdir()):
                    raise InputError(
                        f"the archive {path} is refused: its member {member.name} would leave the folder, or is a link"
                    )
                name = member_path.name
                if member.isfile() and name.removesuffix(".bin") in CIFAR10_BATCHES:
                    files[name] = tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(f"the archive {path} is truncated or broken ({type(error).__name__}: {error})") from None
    return files


def _folder_files(path: Path) -> dict[str, bytes]:
    names = [name + suffix for name in CIFAR10_BATCHES for suffix in ("", ".bin")]
    return {name: (path / name).read_bytes() for name in names if (path / name).is_file()}


def _cifar10_batch(name: str, files: dict[str, bytes], where: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [N, 32, 32, 3] and int64 labels [N] of one batch file."""
    try:
        if name in files:
            batch = _ArrayUnpickler(io.BytesIO(files[name]), encoding="latin1").load()
            rows, labels = batch["data"], np.array(batch["labels"], dtype=np.int64)
        else:
            records = np.frombuffer(files[f"{name}.bin"], dtype=np.uint8).reshape(-1, 3073)
            rows, labels = records[:, 1:], records[:, 0].astype(np.int64)
        if rows.dtype != np.uint8 or rows.shape != (len(labels), 3072):
            raise ValueError(f"{rows.dtype} {rows.shape} for {len(labels)} labels")
    except Exception as error:  # an unpickler meets any error on broken bytes
        raise InputError(f"{name} of {where} is no CIFAR-10 batch ({type(error).__name__}: {error})") from None
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("_codecs", "encode"): _latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain containers and NumPy arrays, which is what the official batches hold, and calls nothing else."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no dataset needs")
        return _ALLOWED[module, name]


def prepare_digits(out: Path, resolution: int) -> None:
    """scikit-learn's handwritten digits (1797 of 8×8, real, no network), enlarged; a fifth of each class is the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.stack([_enlarge(image, resolution) for image in digits.images])
    split = train_test_split(images, digits.target.astype(np.int64), test_size=0.2, random_state=0, stratify=digits.target)
    with writing(out, "digits", [str(name) for name in digits.target_names], {"from": "sklearn.datasets.load_digits"}) as paths:
        for name, array in zip(("train_images", "test_images", "train_labels", "test_labels"), split, strict=True):
            np.save(paths[name], array)


def _enlarge(image: np.ndarray, resolution: int) -> np.ndarray:
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((resolution, resolution), Image.Resampling.BILINEAR).convert("RGB"))


def prepare_image_folder(out: Path, folder: Path, resolution: int) -> None:
    """Images in class folders under train/ and test/, scaled and centre-cropped to resolution². Raises InputError."""
    splits = {name: _image_files(folder / name) for name in ("train", "test")}
    classes = sorted(splits["train"])
    if sorted(splits["test"]) != classes:
        odd = sorted(set(splits["test"]) ^ set(classes))
        raise InputError(f"dataset.folder {folder}: train and test must have the same class folders; one lacks {', '.join(odd)}")
    with writing(out, "image_folder", classes, {"folder": str(folder)}) as paths:
        for split, by_class in splits.items():
            files = [(file, label) for label, name in enumerate(classes) for file in by_class[name]]
            shape = (len(files), resolution, resolution, 3)
            images = np.lib.format.open_memmap(paths[f"{split}_images"], mode="w+", dtype=np.uint8, shape=shape)
            for index, (file, _) in enumerate(Progress(files, desc=split, unit="image")):
                images[index] = _fit(file, resolution)
            images.flush()
            np.save(paths[f"{split}_labels"], np.array([label for _, label in files], dtype=np.int64))


def image_classes(folder: Path) -> list[str]:
    """The class folders of a split. Raises InputError if there is none."""
    if not folder.is_dir():
        raise InputError(f"dataset.folder must hold a folder {folder.name}/ with a folder for each class; {folder} is not there")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise InputError(f"dataset.folder: {folder} holds no class folders")
    return classes


def _image_files(folder: Path) -> dict[str, list[Path]]:
    by_class = {}
    for name in image_classes(folder):
        known = Image.registered_extensions()
        by_class[name] = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in known)
        if not by_class[name]:
            raise InputError(f"dataset.folder: the class folder {folder / name} holds no image")
    return by_class


def _fit(file: Path, resolution: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (resolution, resolution), Image.Resampling.BILINEAR)
            return np.asarray(fitted)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"dataset.folder: {file} is no readable image ({error})") from None
