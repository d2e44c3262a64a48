"""The machine of a measurement: what it is, and whether something else ran on it."""

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from fbnet.device import gpu_uuid, nvidia_driver, nvidia_smi, take_gpus, usable_gpus
from fbnet.errors import InputError
from fbnet.latency.table import LatencyTable, read_header, read_table
from fbnet.latency.target import Target, words
from fbnet.latency.torch_engine import check
from fbnet.runtime import log
from fbnet.space import SearchSpace

BUSY = 0.1  # share of the machine's cores, or of the GPU's time, that others may use before a measurement is called disturbed
VARIABILITY = 0.15  # timing variability from which on it is
_TICKS = {"user": 0, "nice": 1, "system": 2, "irq": 5, "softirq": 6, "steal": 7}


class Watch:
    """How busy others kept the machine, from its making until `report`; and `gpu`, a name as nvidia-smi knows it, before."""

    def __init__(self, gpu: str | None = None):
        told = nvidia_smi("utilization.gpu", "-i", gpu) if gpu else None
        self._gpu = int(told) / 100 if told and told.isdigit() else None  # nothing is known of a part of a GPU
        self._load = os.getloadavg()[0]
        self._start = self._now()

    def _now(self) -> tuple[float, float | None, float]:
        own = sum(os.times()[:4])
        try:
            with open("/proc/stat", encoding="utf-8") as file:
                ticks = file.readline().split()[1:]
            used = sum(int(ticks[i]) for i in _TICKS.values()) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            used = None  # not Linux
        return time.monotonic(), used, own

    def report(self, variability: float) -> dict[str, str]:
        """Lines for a table's header: loads, the share of cores that others used, the given timing variability.

        Where one is above its threshold, there is also the line `disturbed`, which says why, and a warning in the log.
        """
        (start, used_before, own_before), (end, used, own) = self._start, self._now()
        lines = {"load": f"{self._load:.2f} before, {os.getloadavg()[0]:.2f} after"}
        reasons = []
        if used is not None and used_before is not None:
            share = max(0.0, (used - used_before - (own - own_before)) / (end - start) / (os.cpu_count() or 1))
            lines["others"] = f"{share:.1%} of the cores"
            if share > BUSY:
                reasons.append(f"other programs or guests used {share:.0%} of the cores")
        if self._gpu is not None:
            lines["gpu_load"] = f"{self._gpu:.0%} before"
            if self._gpu > BUSY:
                reasons.append(f"other programs used {self._gpu:.0%} of the GPU's time before")
        lines["variability"] = f"{variability:.4f}"
        if variability > VARIABILITY:
            reasons.append(f"timing variability was {variability:.0%}")
        if reasons:
            lines["disturbed"] = "; ".join(reasons)
            log.warning("The machine was disturbed: %s. Measure again when it is quiet.", lines["disturbed"])
        return lines


def describe(target: Target) -> dict[str, str]:
    """What the header of a table says of the device: model, cores, governor, host, versions, date; of a GPU more."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if target.engine == "onnxruntime":
        import onnxruntime

        versions["onnxruntime"] = onnxruntime.__version__
    if _on_gpu(target):
        versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if target.engine == "command":
        name = Path(words(target.command)[0]).name  # where and by what it computes, it alone knows
        return {"machine": name, "host": platform.node(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        **(_describe_gpu(target) if _on_gpu(target) else {"machine": cpu_model()}),
        "cores": f"{os.cpu_count()}",
        "governor": governor.read_text(encoding="utf-8").strip() if governor.exists() else "not readable",
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _describe_gpu(target: Target) -> dict[str, str]:
    """What the current GPU's latencies depend on; `processor`, the host's, where each launch of a kernel takes its time."""
    lines = {
        "machine": torch.cuda.get_device_name(),
        "gpu": gpu_uuid(torch.cuda.current_device()),
        "driver": nvidia_driver() or "not readable",
    }
    if target.dtype == "float32":
        used = {"convolutions": torch.backends.cudnn.conv, "matrix products": torch.backends.cuda.matmul}
        able = torch.cuda.get_device_capability() >= (8, 0)
        told = (f"{what} {'yes' if able and of.fp32_precision == 'tf32' else 'no'}" for what, of in used.items())
        lines["tf32"] = ", ".join(told)
    return lines | ({} if target.mode == "graphs" else {"processor": cpu_model()})


def _on_gpu(target: Target) -> bool:
    return target.engine == "torch" and target.device == "cuda"


def take_device(target: Target, table: Path | None = None) -> dict[str, str]:
    """Have a target's device as long as this process lives, and describe it.

    A GPU is a free one, of the model that the latency `table` was measured on, and from then on the current one ("cuda").
    Raises InputError for a device that is not there, or of another kind than the table's.
    """
    check(target)
    if _on_gpu(target):
        model = read_header(table).get("machine") if table else None
        usable = usable_gpus()
        fitting = [index for index in usable if model in (None, torch.cuda.get_device_name(index))]
        torch.cuda.set_device(take_gpus(1, fitting)[0].index if fitting else usable[0])
    about = describe(target)
    if table:
        check_same(table, about)
    if _on_gpu(target):
        log.info("Measuring on the GPU %s (%s).", about["machine"], about["gpu"])
    return about


def take_device_of(table: Path, space: SearchSpace, classes: int, target: Target) -> tuple[LatencyTable, dict[str, str]]:
    """Read a measured table, and have the device that it was measured on, described, to compare whole networks with it.

    Raises InputError for a table that was not measured, or not with these settings on this kind of machine.
    """
    target.check("latency")
    if target.engine == "analytic":
        raise InputError("--engine is analytic: such a table counts instead of measuring, so there is nothing to compare it with")
    return read_table(table, space, classes, target.settings()), take_device(target, table)


def check_same(table: Path, about: dict[str, str]) -> None:
    """Raise InputError unless a latency table was measured on the kind of machine that is `about` (see `describe`)."""
    header = read_header(table)
    where = (
        "measure where the table was made (on a cluster, the key resources of the latency target names the nodes), or make the "
        "table anew with --forcerun profile_latency"
    )
    if "machine" not in header:
        raise InputError(
            f"{table} does not say on which machine it was measured, so that this one cannot be compared with it; what networks "
            f"take there can be brought, too, as the key validation of the latency target"
        )
    if header["machine"] != about["machine"]:
        raise InputError(
            f"{table} was measured on {header['machine']} ({header.get('host', 'unknown host')}), but this is "
            f"{about['machine']} ({about['host']}): {where}"
        )
    if "processor" in about and header.get("processor", about["processor"]) != about["processor"]:
        raise InputError(
            f"{table} was measured where the processor is {header['processor']} ({header.get('host', 'unknown host')}), but here "
            f"it is {about['processor']} ({about['host']}), which launches the GPU's kernels at another speed: {where}; in mode "
            f"'graphs' it does not matter"
        )


def cpu_model() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()
