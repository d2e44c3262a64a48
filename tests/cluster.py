"""A SLURM on this machine, of seven nodes with a GPU each by name: `python tests/cluster.py COMMAND ...` runs a command on it.

It needs root, as slurmd does, and Debian's packages, which it installs. Its files are in one folder, save those that
SLURM's commands find only in /etc/slurm; it ends the processes that it started, and stays away from a SLURM that is here already.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "rsync")  # rsync: for the stand-in of Kubernetes in test_profiles
COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged", "rsync")  # what these bring
NODES = {"node1": "old", "node2": "new"}  # of the partition main, and their features
FAULTS = {"node3": "old", "node4": "old", "node5": "old"}  # of the partition faults: where a test disturbs a job
SPARE = {"node6": "old", "node7": "old"}  # of the partition spare: who may be taken down
ALL = NODES | FAULTS | SPARE
FOLDER = "TOY_CLUSTER"  # the environment variable that tells the command of the cluster's folder
ETC = Path("/etc/slurm")
JOB_LIST = "JobID:7,NodeList:7,tres-per-job:12,OverSubscribe:10,State:12,TimeUsed:8,Comment:90"
MARK = "# made by tests/cluster.py"
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} Feature={feature}"
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
JobCompType=jobcomp/none
NodeName=DEFAULT CPUs=8 RealMemory=100000 TmpDisk=100000 Gres=gpu:a100:1
{nodes}
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
PartitionName=faults Nodes=node3,node4,node5 MaxTime=INFINITE State=UP
PartitionName=spare Nodes=node6,node7 MaxTime=INFINITE State=UP
"""


def unavailable() -> str | None:
    """Why there can be no such cluster here; None where there can."""
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    missing = [command for command in COMMANDS if not shutil.which(command)]
    if missing and not shutil.which("apt-get"):
        return f"{', '.join(missing)} is not here, and no apt-get to install it"
    conf = ETC / "slurm.conf"
    if conf.exists() and not conf.read_text(encoding="utf-8").startswith(MARK):
        return "this machine has a SLURM of its own"
    return None


def install() -> None:
    """Bring SLURM's daemons from Debian's packages, where they are not here yet."""
    if not all(map(shutil.which, COMMANDS)):
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], **quiet)


class Cluster:
    """The cluster that keeps its files in a folder; the process that started it need not be this one."""

    def __init__(self, folder: Path):
        self.folder = folder

    def call(self, *command) -> str:
        """The output of one of SLURM's commands."""
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def jobs(self, folder: Path) -> list[dict]:
        """All jobs that were submitted from a folder, in that order, in SLURM's own words."""
        jobs = json.loads(self.call("squeue", "--json", "--states", "all"))["jobs"]
        return sorted((job for job in jobs if job["current_working_directory"] == str(folder)), key=lambda job: job["job_id"])

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start("slurmd", "-D", "-N", node, name=node)

    def stop_node(self, node: str) -> None:
        """The node is gone: its daemon is killed, and what ran there with it."""
        for process in self._processes(node):
            process.kill()
        jobs = self.call("squeue", "--noheader", "--nodelist", node, "--states", "RUNNING", "--format", "%A").split()
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended
                variables = process.environ()
                if variables.get("SLURM_CLUSTER_NAME") == "toy" and variables.get("SLURM_JOB_ID") in jobs:
                    process.kill()

    def are_idle(self, nodes=ALL) -> bool:
        """Whether these nodes are there, and free."""
        try:
            states = self.call("sinfo", "--noheader", "--Node", "--nodes", ",".join(nodes), "--format", "%t").split()
        except subprocess.CalledProcessError:
            return False
        return states == ["idle"] * len(nodes)

    def start(self) -> None:
        """Start everything; the folder must be new."""
        folder = self.folder
        for name in ("munge", "state", "pid", *(f"spool-{node}" for node in ALL)):
            (folder / name).mkdir(parents=True)
        for path in (folder, folder / "munge"):
            os.chmod(path, 0o755)  # others may reach the socket, as munged demands
        key = folder / "munge/key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        controller, *ports = _free_ports(1 + len(ALL))
        host = socket.gethostname().partition(".")[0]
        nodes = zip(ALL.items(), ports, strict=True)
        lines = [NODE.format(name=name, host=host, port=port, feature=feature) for (name, feature), port in nodes]
        conf = CONF.format(host=host, folder=folder, controller=controller, nodes="\n".join(lines))
        ETC.mkdir(exist_ok=True)
        (ETC / "slurm.conf").write_text(MARK + conf, encoding="utf-8")
        # Any device file will do: SLURM hands it out by number, and sets CUDA_VISIBLE_DEVICES.
        (ETC / "gres.conf").write_text(
            "".join(f"NodeName={node} Name=gpu Type=a100 File=/dev/null\n" for node in ALL), encoding="utf-8"
        )
        files = {"key-file": key, "socket": folder / "munge/socket", "seed-file": folder / "munge/seed"}
        files |= {"pid-file": folder / "munge/pid", "log-file": folder / "munge/log"}
        self._start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        _wait_for((folder / "munge/socket").exists, "munged")
        self._start("slurmctld", "-D")
        for node in ALL:
            self.start_node(node)
        _wait_for(self.are_idle, "the nodes")

    def stop(self) -> None:
        """End all jobs, and every process that was started."""
        with suppress(subprocess.SubprocessError, TimeoutError):
            self.call("scancel", "--user=root")
            _wait_for(lambda: not self.call("squeue", "--noheader"), "the end of all jobs", 20)
        processes = self._processes(*ALL, "slurmctld", "munged")
        for process in processes:
            process.terminate()
        for process in psutil.wait_procs(processes, timeout=10)[1]:
            process.kill()
        for name in ("slurm.conf", "gres.conf"):
            (ETC / name).unlink(missing_ok=True)

    def _start(self, command: str, *options: str, name: str | None = None) -> None:
        name = name or command
        with open(self.folder / f"{name}.out", "ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            process = subprocess.Popen([command, *options], **streams, start_new_session=True)
        (self.folder / "pid" / name).write_text(str(process.pid), encoding="utf-8")

    def _processes(self, *names: str) -> list[psutil.Process]:
        pids = [self.folder / "pid" / name for name in names]
        found = []
        for pid in filter(Path.exists, pids):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid.read_text(encoding="utf-8"))))
            pid.unlink()
        return found


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that keeps all its files in a new folder, and is gone afterwards."""
    toy = Cluster(folder)
    try:
        toy.start()
        yield toy
    finally:
        toy.stop()


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
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def main(command: list[str]) -> int:
    """Run a command on a cluster, or without one where there can be none, and return its exit code."""
    reason = unavailable()
    if reason:
        print(f"There can be no SLURM here: {reason}.", flush=True)
        return subprocess.run(command, check=False).returncode
    began = time.monotonic()
    install()
    installed = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, cluster(Path(folder) / "toy") as toy:
        print(f"SLURM: {installed - began:.0f} s to install, {time.monotonic() - installed:.1f} s to start.", flush=True)
        code = subprocess.run(command, env=os.environ | {FOLDER: str(toy.folder)}, check=False).returncode
        print(toy.call("squeue", "--states", "all", "--sort", "i", "--Format", JOB_LIST))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
