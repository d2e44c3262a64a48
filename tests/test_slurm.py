"""The workflow on a real SLURM of two nodes with a GPU each, on this machine, and what clusters do to jobs: make test-slurm."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from cluster import NODES, cluster, install, unavailable
from conftest import TINY, Workflow
from fbnet.latency import read_header

pytestmark = pytest.mark.slurm

# What the profile leaves to the cluster, and what would make so small a one wait.
HERE = (
    *("--workflow-profile", "profiles/slurm", "--cores", "2", "--latency-wait", "5"),
    *("--seconds-between-status-checks", "1", "--slurm-init-seconds-before-status-checks", "1"),
    *("--default-resources", "runtime=10", "mem_mb=1000"),
)
EPOCHS = 40


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    install()
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as toy:
        yield toy


class SlurmWorkflow(Workflow):
    """A copy of the workflow that runs on the cluster."""

    def __init__(self, folder, toy):
        super().__init__(folder)
        self.toy = toy

    def command(self, *arguments):
        return [sys.executable, "-m", "snakemake", *map(str, arguments), *HERE]

    def __call__(self, *arguments):
        return subprocess.run(
            self.command(*arguments),
            **{"cwd": self.folder, "timeout": 280, "text": True},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )

    def start(self, *arguments):
        """Begin a call; its output goes to a file, `output`."""
        self.output = self.folder / "output.txt"
        with open(self.output, "w") as file:
            return subprocess.Popen(
                self.command(*arguments),
                **{"cwd": self.folder, "start_new_session": True},
                **{"stdout": file, "stderr": subprocess.STDOUT},
            )


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    """An evaluation of two searches, whose measuring jobs want the node that is called new."""
    workflow = SlurmWorkflow(tmp_path_factory.mktemp("slurm") / "work flow; touch x", toy)
    workflow.configure(
        TINY
        | {"searches": {"first": {}, "second": {"seed": 1}}, "latency": {"cpu": {"runs": 3, "resources": {"constraint": "new"}}}}
        | {"evaluation": TINY["evaluation"] | {"trainings": 1, "random": 0}}
    )
    done = workflow("all", "make_report")
    assert done.returncode == 0, done.stdout
    workflow.output = done.stdout
    return workflow


@pytest.fixture
def prepared(finished, tmp_path):
    """A new workflow whose table and images are there; its search takes long enough to be disturbed."""
    workflow = SlurmWorkflow(tmp_path / "workflow", finished.toy)
    config = TINY | {"search": TINY["search"] | {"epochs": EPOCHS}, "checkpoint_minutes": 0.01}
    config |= {"latency": {"cpu": {"table": str(finished.folder / "results/latency/cpu.tsv")}}}
    workflow.configure(config)
    done = Workflow.__call__(workflow, "results/data/digits/dataset.json", "results/latency/cpu.tsv")
    assert done.returncode == 0, done.stdout
    workflow.results = workflow.folder / "results"
    workflow.history = workflow.results / "search/first/history.tsv"
    workflow.checkpoint = workflow.results / "search/first/checkpoint.pt"
    return workflow


def wait_for(condition, seconds=120, process=None):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        assert process is None or process.poll() is None, "Snakemake has ended before"
        time.sleep(0.2)


def running(toy):
    """The jobs that run, by id, and their nodes."""
    lines = toy.call("squeue", "--noheader", "--states", "RUNNING", "--format", "%A %N").splitlines()
    return dict(line.split() for line in lines)


def assert_whole(workflow):
    """Each epoch is there once, in order, and nothing is left of what a resumption needs."""
    history = pd.read_csv(workflow.history, sep="\t")
    weights = history[history.phase == "weights"]
    assert weights.epoch.tolist() == list(range(EPOCHS))
    theta = pd.read_csv(workflow.results / "search/first/theta.tsv", sep="\t")
    assert not theta.duplicated(["epoch", "layer", "op"]).any()
    assert not workflow.checkpoint.exists()
    assert "Traceback" not in workflow.output.read_text()


def test_the_sweep_runs_and_measures_where_it_should(finished):
    results = finished.folder / "results"
    assert {path.name for path in results.glob("modeldef/*.py")} == {"first.py", "second.py"}
    assert (results / "report.html").exists()
    assert not (finished.folder / "x").exists()
    jobs = finished.toy.jobs()
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    # profiling with its plot and validation; 2 searches, 2 × sampling with export and measurement, 2 × judging inside the
    # supernet, 2 trainings, the report with its plots
    assert len(jobs) == 1 + 2 + 2 + 2 + 2 + 1
    assert finished.output.count("has been submitted with SLURM jobid") == len(jobs)
    table = read_header(results / "latency/cpu.tsv")
    assert {"machine", "host", "cores"} <= table.keys()


def test_jobs_of_a_target_go_to_its_nodes_alone(finished):
    """As SLURM itself recorded them."""
    toy = finished.toy
    lines = toy.call("scontrol", "show", "job", "--oneliner", "--details").splitlines()
    details = [dict(pair.partition("=")[::2] for pair in line.split() if "=" in pair) for line in lines]
    told = ("JobId", "NodeList", "JOB_GRES", "TresPerJob", "OverSubscribe", "Comment")
    for job in details:
        print(*(f"{key}={job.get(key, '')}" for key in told))
    exclusive = [job for job in details if job["OverSubscribe"] == "NO"]
    assert len(exclusive) == 3  # latency, and what belongs to the two searches
    assert {(job["NodeList"], job["Features"]) for job in exclusive} == {("node2", "new")}
    on_gpu = [job for job in details if job.get("TresPerJob") == "gres:gpu:1"]
    assert len(on_gpu) == 2 + 2 + 2  # searches, judging, trainings
    assert {job["NodeList"] for job in on_gpu} == set(NODES)


def test_a_cancelled_training_goes_on(prepared):
    snakemake = prepared.start("results/search/first/history.tsv")
    wait_for(prepared.checkpoint.exists, process=snakemake)
    [job] = running(prepared.toy)
    prepared.toy.call("scancel", job)
    assert snakemake.wait(300) == 0, prepared.output.read_text()
    assert "Resuming in epoch" in prepared.output.read_text() + (prepared.results / "logs/train_supernet/first.log").read_text()
    assert_whole(prepared)


def test_a_training_past_its_time_limit_is_warned_saves_and_goes_on(prepared):
    prepared.configure(prepared.config | {"checkpoint_minutes": 1000, "search": prepared.config["search"] | {"epochs": EPOCHS}})
    extra = ("--set-resources", "train_supernet:runtime=1", "train_supernet:slurm_extra='--signal=USR1@55'")
    snakemake = prepared.start("results/search/first/history.tsv", *extra)
    assert snakemake.wait(400) == 0, prepared.output.read_text()
    output = prepared.output.read_text()
    logs = "".join(path.read_text() for path in prepared.folder.glob(".snakemake/slurm_logs/**/*.log"))
    assert "Stopped by SIGUSR1" in logs + output
    assert "Resuming in epoch" in logs + output
    assert "TIMEOUT" not in {job["JobState"] for job in prepared.toy.jobs()}
    assert_whole(prepared)


def test_snakemake_killed_and_started_again_waits_for_its_own_job(prepared):
    snakemake = prepared.start("results/search/first/history.tsv")
    wait_for(prepared.checkpoint.exists, process=snakemake)
    os.killpg(snakemake.pid, signal.SIGKILL)
    snakemake.wait()
    assert len(running(prepared.toy)) == 1  # the job goes on
    locked = prepared("results/search/first/history.tsv")
    assert locked.returncode != 0
    assert "--unlock" in locked.stdout
    assert prepared("--unlock").returncode == 0
    again = prepared.start("results/search/first/history.tsv")
    assert again.wait(300) == 0, prepared.output.read_text()
    logs = "".join(path.read_text() for path in prepared.folder.glob(".snakemake/slurm_logs/**/*.log"))
    assert "is in use" in logs
    assert "The same search has ended meanwhile" in logs
    assert_whole(prepared)


def test_the_job_of_a_node_that_is_gone_runs_elsewhere(prepared):
    toy = prepared.toy
    snakemake = prepared.start("results/search/first/history.tsv")
    wait_for(prepared.checkpoint.exists, process=snakemake)
    [node] = running(toy).values()
    toy.stop_node(node)
    try:
        assert snakemake.wait(400) == 0, prepared.output.read_text()
    finally:
        toy.start_node(node)
        wait_for(toy.is_ready)
    [other] = set(NODES) - {node}
    assert toy.jobs()[-1]["NodeList"] == other
    assert "Resuming in epoch" in (prepared.results / "logs/train_supernet/first.log").read_text()
    assert_whole(prepared)
