"""The machine of a measurement: what it is, and whether something else ran on it."""

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from fbnet.errors import InputError
from fbnet.latency import read_header
from fbnet.target import Target

BUSY = 0.1  # share of the machine's cores that others may use before a measurement is called disturbed
UNREST = 0.15  # spread of the machine's speed from which on it is
_TICKS = {"user": 0, "nice": 1, "system": 2, "irq": 5, "softirq": 6, "steal": 7}


class Watch:
    """How busy others kept the machine, from its making until `report`."""

    def __init__(self):
        self._load = os.getloadavg()[0]
        self._start = self._now()

    def _now(self) -> tuple[float, float | None, float]:
        own = sum(os.times()[:4])
        try:
            with open("/proc/stat") as file:
                ticks = file.readline().split()[1:]
            used = sum(int(ticks[i]) for i in _TICKS.values()) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            used = None  # not Linux
        return time.monotonic(), used, own

    def report(self, speed_spread: float) -> dict[str, str]:
        """Lines for a table's header: load, the share of cores that others used, the given spread of the speed (`unrest`).

        Where one is above its threshold, there is also the line `disturbed`, which says why.
        """
        (start, used_before, own_before), (end, used, own) = self._start, self._now()
        lines = {"load": f"{self._load:.2f} before, {os.getloadavg()[0]:.2f} after"}
        reasons = []
        if used is not None and used_before is not None:
            share = max(0.0, (used - used_before - (own - own_before)) / (end - start) / (os.cpu_count() or 1))
            lines["others"] = f"{share:.1%} of the cores"
            if share > BUSY:
                reasons.append(f"other programs or guests used {share:.0%} of the cores")
        lines["unrest"] = f"{speed_spread:.4f}"
        if speed_spread > UNREST:
            reasons.append(f"the machine's speed varied by {speed_spread:.0%}")
        return lines | ({"disturbed": "; ".join(reasons)} if reasons else {})


def describe(target: Target) -> dict[str, str]:
    """What the header of a table says of the device: model, cores, governor, host, versions, date."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if target.engine == "onnxruntime":
        import onnxruntime

        versions["onnxruntime"] = onnxruntime.__version__
    on_gpu = target.engine == "torch" and target.device == "cuda"
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "machine": torch.cuda.get_device_name() if on_gpu else cpu_model(),
        "cores": f"{os.cpu_count()}",
        "governor": governor.read_text().strip() if governor.exists() else "not readable",
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_same(table: Path, about: dict[str, str]) -> None:
    """Raise InputError unless a latency table was measured on the kind of machine that is `about` (see `describe`)."""
    header = read_header(table)
    if "machine" in header and header["machine"] != about["machine"]:
        raise InputError(
            f"{table} was measured on {header['machine']} ({header.get('host', 'unknown host')}), but this is "
            f"{about['machine']} ({about['host']}): measure where the table was made (on a cluster, the key resources of the "
            f"latency target names the nodes), or make the table anew with --forcerun profile_latency"
        )


def cpu_model() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()
