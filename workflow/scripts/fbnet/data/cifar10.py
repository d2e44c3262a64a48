"""CIFAR-10, from its archive or unpacked, in the python or the binary layout."""

import io
import pickle
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from fbnet.data.dataset import writing
from fbnet.errors import InputError
from fbnet.runtime import Progress

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR10_BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


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
