"""A SLURM of two nodes on this machine, each with a GPU by name: `with cluster(folder) as toy`.

It needs root, as slurmd does, and Debian's packages, which `install` brings. Its files are in one folder, save those that
SLURM's commands find only in /etc/slurm; it ends the processes that it started, and stays away from a SLURM that is here already.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
NODES = ("node1", "node2")
CPUS = 8  # of each node, as SLURM is told
ETC = Path("/etc/slurm")
MARK = "# the two nodes of tests/cluster.py"
CONF = """
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
MinJobAge=3600
DefMemPerCPU=100
KillWait=5
OverTimeLimit=0
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs={cpus} RealMemory=100000 Gres=gpu:1 Feature=old
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2} CPUs={cpus} RealMemory=100000 Gres=gpu:1 Feature=new
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def unavailable() -> str | None:
    """Why there can be no such cluster here; None where there can."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    if not shutil.which("slurmctld") and not shutil.which("apt-get"):
        return "SLURM is not here, and no apt-get to install it"
    conf = ETC / "slurm.conf"
    if conf.exists() and not conf.read_text().startswith(MARK):
        return "this machine has a SLURM of its own"
    return None


def install() -> None:
    """Bring SLURM's daemons from Debian's packages, where they are not here yet."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], **quiet)


class Cluster:
    """A running cluster."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen] = {}

    def call(self, *command) -> str:
        """The output of one of SLURM's commands."""
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(node, "slurmd", "-D", "-N", node)

    def stop_node(self, node: str) -> None:
        """The node is gone: its daemon is killed, and what ran there with it."""
        self._daemons.pop(node).kill()
        jobs = self.call("squeue", "--noheader", "--nodelist", node, "--states", "RUNNING", "--format", "%A").split()
        for status in Path("/proc").glob("[0-9]*/environ"):
            try:
                variables = dict(pair.partition(b"=")[::2] for pair in status.read_bytes().split(b"\0"))
            except OSError:
                continue  # it has ended
            if variables.get(b"SLURM_CLUSTER_NAME") == b"toy" and variables.get(b"SLURM_JOB_ID", b"").decode() in jobs:
                os.kill(int(status.parent.name), signal.SIGKILL)

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that have ended, in that order, as SLURM recorded them."""
        record = self.folder / "jobs.log"
        lines = record.read_text().splitlines() if record.exists() else []
        return [dict(pair.partition("=")[::2] for pair in line.split() if "=" in pair) for line in lines]

    def _start(self, name: str, *command: str) -> None:
        log = open(self.folder / f"{name}.out", "ab")  # noqa: SIM115 — as long as the daemon lives
        self._daemons[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _start_all(self) -> None:
        folder = self.folder
        for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        os.chmod(folder / "munge", 0o755)  # others may reach the socket, as munged demands
        key = folder / "munge/key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        ports = dict(zip(("controller", *NODES), _free_ports(3), strict=True))
        conf = CONF.format(host=socket.gethostname().partition(".")[0], folder=folder, cpus=CPUS, **ports)
        ETC.mkdir(exist_ok=True)
        (ETC / "slurm.conf").write_text(MARK + conf)
        # Any device file will do: SLURM hands it out by number, and sets CUDA_VISIBLE_DEVICES.
        (ETC / "gres.conf").write_text("".join(f"NodeName={node} Name=gpu File=/dev/null\n" for node in NODES))
        files = {"key-file": key, "socket": folder / "munge/socket", "seed-file": folder / "munge/seed"}
        files |= {"pid-file": folder / "munge/pid", "log-file": folder / "munge/log"}
        self._start("munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        _wait_for((folder / "munge/socket").exists, "munged")
        self._start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        _wait_for(self.is_ready, "the nodes")

    def is_ready(self) -> bool:
        """Whether all nodes take jobs."""
        try:
            return self.call("sinfo", "--noheader", "--Node", "--format", "%t").split() == ["idle"] * len(NODES)
        except subprocess.CalledProcessError:
            return False

    def _stop_all(self) -> None:
        if "slurmctld" in self._daemons:
            subprocess.run(["scancel", "--user=root"], timeout=60, check=False)
            for _ in range(100):
                if not self.call("squeue", "--noheader"):
                    break
                time.sleep(0.1)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that keeps all its files in a new folder, and is gone afterwards."""
    toy = Cluster(folder)
    try:
        toy._start_all()
        yield toy
    finally:
        toy._stop_all()
        for name in ("slurm.conf", "gres.conf"):
            (ETC / name).unlink(missing_ok=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait_for(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {seconds} s")
        time.sleep(0.1)
