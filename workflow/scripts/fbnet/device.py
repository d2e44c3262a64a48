"""Where a program computes."""

import ctypes
import fcntl
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from fbnet import limits
from fbnet.errors import InputError
from fbnet.runtime import log

# CUDA's major versions and the oldest driver of each: NVIDIA, CUDA Compatibility, minor version compatibility.
OLDEST_DRIVERS = {12: 525, 13: 580}
PARENT = "FBNET_PARENT"  # a pipe that ends when the parent does: who has one is of several processes, started by `ranks.launch`
_ON_CPU = "or compute on the CPU (gpu: 0; of a latency target, device: cpu)"
_NVIDIA_SMI_S = 10  # longer than it takes to wake several GPUs


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process has for itself: `lock` is an open file, and whoever keeps it open keeps the GPU."""

    index: int
    uuid: str
    lock: int


def choose_device(threads: int, gpus: int = 1) -> torch.device:
    """The first free GPU, or the CPU with so many threads (0: all that it may use, and never more); said in the log.

    `gpus`: how many the whole program has, with a process on each; 0: it computes on the CPU, also where there is a GPU.
    Threads are those of all its processes together. Raises InputError where there is a GPU that PyTorch cannot use.
    """
    if gpus and (usable := usable_gpus()):
        gpu = _only_gpu() if PARENT in os.environ else take_gpus(1, usable)[0].index
        log.info("Computing on the GPU %s.", torch.cuda.get_device_name(gpu))
        torch.cuda.set_device(gpu)
        return torch.device("cuda", gpu)
    cores = limits.cpus()
    torch.set_num_threads(max(min(threads or cores, cores) // max(gpus, 1), 1))  # more threads than cores are slower than one
    keep_freed_memory()
    reason = "PyTorch finds no GPU" if gpus else "No GPU is wanted"
    log.info("%s: computing on the CPU with %d threads.", reason, torch.get_num_threads())
    return torch.device("cpu")


def _only_gpu() -> int:
    """Of a process among several: whoever started them has chosen."""
    return int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.device_count() > 1 else 0


def usable_gpus() -> list[int]:
    """Indices of the GPUs that PyTorch can compute on; none where there is none, or where CUDA_VISIBLE_DEVICES hides all.

    Raises InputError, with cause and fix, where this process has a GPU that PyTorch cannot use, and no other.
    """
    if torch.version.hip:
        return list(range(torch.cuda.device_count()))
    if torch.cuda.is_available():
        capabilities = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
        built_for = torch.cuda.get_arch_list()
        usable = [index for index, capability in enumerate(capabilities) if has_code_for(capability, built_for)]
        if not usable:
            raise InputError(f"{torch.cuda.get_device_name(0)}: {why_no_code(capabilities[0], built_for)}; {_ON_CPU}")
        return usable
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    driver = None if hides_all(visible) else nvidia_driver()
    if driver is None:
        return []
    cause = why_none(torch.version.cuda, driver, _what_pytorch_says(), visible)
    raise InputError(f"there is an NVIDIA GPU here, but {cause}; {_ON_CPU}")


def hides_all(visible: str | None) -> bool:
    """Whether this value of CUDA_VISIBLE_DEVICES leaves no GPU to a program: CUDA stops at the first that is no GPU's name."""
    return visible is not None and not re.match(r"\s*(\d|GPU-|MIG-)", visible)


def has_code_for(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether a build of PyTorch can run on a compute capability; `built_for` as torch.cuda.get_arch_list has it.

    Machine code (sm_86) runs on the same major version from its minor one on, PTX (compute_90) on all that came later; code for
    the features of one chip (sm_90a) there only, of a family (compute_100f) within it. A build that names none is let pass.
    """
    codes = _codes(built_for)
    return not codes or any(
        capability == built
        or (special != "a" and capability > built and (capability[0] == built[0] or kind + special == "compute"))
        for kind, built, special in codes
    )


def _codes(built_for: Sequence[str]) -> list[tuple[str, tuple[int, int], str]]:
    found = re.findall(r"(sm|compute)_(\d+)([a-z]?)", " ".join(built_for))
    return [(kind, divmod(int(version), 10), special) for kind, version, special in found]


def why_no_code(capability: tuple[int, int], built_for: Sequence[str]) -> str:
    """In words, that a build of PyTorch has no code for a compute capability, and what to install."""
    built = sorted({version for _, version, _ in _codes(built_for)})
    fix = "a build of PyTorch for an older CUDA" if capability < built[0] else "a newer PyTorch"
    return (
        f"its compute capability is {_dotted(capability)}, but PyTorch {torch.__version__} has code for "
        f"{', '.join(map(_dotted, built))} only: install {fix} (pytorch.org/get-started)"
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def why_none(cuda: str | None, driver: str, said: str, visible: str | None) -> str:
    """In words, why PyTorch finds no GPU where there is one, and what to do.

    `cuda` is what PyTorch was built for, `said` its own words, `visible` the value of CUDA_VISIBLE_DEVICES.
    """
    if cuda is None:
        return "PyTorch was built without CUDA: install a build for CUDA (pytorch.org/get-started)"
    found = re.match(r"\d+", driver)
    oldest = OLDEST_DRIVERS.get(int(cuda.split(".")[0]), 0)
    if found and int(found[0]) < oldest:
        served = [major for major, least in OLDEST_DRIVERS.items() if least <= int(found[0])]
        instead = f", or a build of PyTorch for CUDA {max(served)} (pytorch.org/get-started)" if served else ""
        return (
            f"its driver {driver} is too old for PyTorch's CUDA {cuda}, which needs {oldest} or newer: install a newer driver"
            f"{instead}"
        )
    hidden = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible else ""
    return (
        f'PyTorch cannot use it with driver {driver}{hidden} and says {said!r}: mend that until `python -c "import torch; '
        f'torch.cuda.init()"` says nothing'
    )


def _what_pytorch_says() -> str:
    """Why it cannot use a GPU, in one line."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # of a build without CUDA the latter
        return " ".join(str(error).split())
    return "nothing"


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """The version of the driver of an NVIDIA GPU that this process may use; None where there is no such GPU."""
    told = nvidia_smi("driver_version")
    if told and re.fullmatch(r"\d[\d.]*", told):
        return told
    # nvidia-smi may be absent, or fail where there is a GPU, as after an update of the driver. What /proc tells is of the whole
    # host: of a container or a job without a GPU too, which may not open its device.
    devices = (root / "dev").glob("nvidia[0-9]*")
    if not any((root / "proc/driver/nvidia/gpus").glob("*")) or not any(os.access(path, os.R_OK | os.W_OK) for path in devices):
        return None
    found = re.search(r"\d{3,}\.\d[\d.]*", (root / "proc/driver/nvidia/version").read_text(encoding="utf-8"))
    return found[0] if found else "of an unknown version"


def nvidia_smi(what: str, *options: str) -> str | None:
    """A property of the first GPU that nvidia-smi knows (or that the options name), without unit; None where it fails."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", *options]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=_NVIDIA_SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else None


def gpu_uuid(index: int) -> str:
    """The name of a GPU that is its own everywhere, and that nvidia-smi and CUDA_VISIBLE_DEVICES know."""
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


def take_gpus(count: int, among: Sequence[int] | None = None) -> list[Gpu]:
    """So many GPUs `among` these (or all usable ones) that no other job uses, when there are; an index is PyTorch's.

    They are free again when the last process with a lock ends. The log says which GPUs PyTorch cannot use. Raises InputError if
    there are fewer.
    """
    usable = usable_gpus()
    for index in sorted({*range(torch.cuda.device_count())} - {*usable}):
        why = why_no_code(torch.cuda.get_device_capability(index), torch.cuda.get_arch_list())
        log.warning("GPU %d, %s, is left aside: %s.", index, torch.cuda.get_device_name(index), why)
    names = {gpu_uuid(index): index for index in (usable if among is None else among)}
    if len(names) < count:
        raise InputError(f"search.gpu is {count}, but PyTorch can use only {len(names)} here: choose at most that")
    return [Gpu(names[name], name, lock) for name, lock in take(list(names), count).items()]


def take(names: Sequence[str], count: int) -> dict[str, int]:
    """Locks on `count` of these devices, all at once, as open files by name; waits, and says so, until so many are free."""
    said = False
    paths = {name: Path(tempfile.gettempdir()) / f"fbnet-{name}.lock" for name in names}
    while True:
        held: dict[str, int] = {}
        for name, path in paths.items():
            lock = _try_lock(path) if len(held) < count else None
            if lock is not None:
                held[name] = lock
        if len(held) == count:
            return held
        for lock in held.values():
            os.close(lock)
        if not said:
            log.info("Waiting: of %d devices, %d are free of other jobs, and %d are wanted.", len(names), len(held), count)
            for path in paths.values():
                if path.exists() and not os.access(path, os.R_OK):
                    log.warning("%s cannot be opened, and counts as another's: its owner can mend that by chmod a+r.", path)
            said = True
        time.sleep(1)


def _try_lock(path: Path) -> int | None:
    """An open file with a lock on it, or None where another process has it; the kernel unlocks it when its holders end.

    All users share the file, whatever the umask of the first. One that cannot be opened is another's.
    """
    try:
        file = _open_shared(path)
    except (PermissionError, FileExistsError):  # the latter where another has made it just now
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _open_shared(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)  # without O_CREAT, with which Linux refuses another's file in a folder as /tmp
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a drive without modes
            os.fchmod(file, 0o666)
        return file


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free for the next.

    Asking the system each time takes a fifth of a training step, and of an inference of large images up to a half. Other C
    libraries than glibc are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
