"""The workflow on a real SLURM, on this machine, and what clusters do to jobs: make test-slurm."""

import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from cluster import FOLDER, NODES, SPARE, Cluster
from conftest import TINY, Workflow, wait_for, with_plugin, write_table
from fbnet.latency import read_header
from test_profiles import BY_GRES, uncommented

pytestmark = pytest.mark.cluster

# What the profile leaves to the cluster, and what would make so small a one wait.
HERE = (
    *("--workflow-profile", "profiles/slurm", "--cores", "2", "--latency-wait", "5"),
    *("--seconds-between-status-checks", "2", "--slurm-init-seconds-before-status-checks", "1"),
)
SMALL = ("--default-resources", "runtime=10", "mem_mb=1000")
ON_FAULTS = (*SMALL, "slurm_partition=faults")
ON_SPARE = (*SMALL, "slurm_partition=spare")
HISTORY = "results/search/first/history.tsv"


@pytest.fixture(scope="session")
def toy():
    if FOLDER not in os.environ:
        pytest.skip("there is no cluster: make test-slurm starts one")
    return Cluster(Path(os.environ[FOLDER]))


class SlurmWorkflow(Workflow):
    """A copy of the workflow that runs on the cluster."""

    def __init__(self, folder, toy):
        super().__init__(folder)
        self.toy = toy
        self.results = folder / "results"
        self.checkpoint = self.results / "search/first/checkpoint.pt"
        self.output = folder / "output.txt"

    def command(self, *arguments):
        return [sys.executable, "-m", "snakemake", *map(str, arguments), *HERE]

    def __call__(self, *arguments):
        return super().__call__(*arguments, *SMALL, env=with_plugin("slurm"), timeout=600)

    def start(self, options=ON_FAULTS):
        """Begin the search, on the nodes for faults if nothing else is said, and go on at once."""
        return super().start(HISTORY, *options, env=with_plugin("slurm"))

    def take_profile(self, text):
        """Another profile from now on."""
        (self.folder / "profiles/slurm/config.yaml").write_text(text, encoding="utf-8")

    def jobs(self, *states):
        """The jobs of this workflow, those in one of these states if any are named."""
        return [job for job in self.toy.jobs(self.folder) if job["job_state"] in states or not states]

    def said(self):
        """All that was said, by Snakemake or in a job."""
        logs = [self.output, *self.folder.glob(".snakemake/slurm_logs/**/*.log"), *self.results.glob("logs/**/*.log")]
        return "\n".join(path.read_text(encoding="utf-8") for path in logs)


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    """An evaluation of two searches, whose measuring jobs want the node that is called new."""
    workflow = SlurmWorkflow(tmp_path_factory.mktemp("slurm") / "work flow; touch x", toy)
    workflow.configure(
        TINY
        | {"searches": {"first": {}, "second": {"seed": 1}}, "latency": {"cpu": {"runs": 3, "resources": {"constraint": "new"}}}}
        | {"evaluation": TINY["evaluation"] | {"trainings": 1, "random": 0, "rules": [], "ranked": 0}}
        | {"train": TINY["train"] | {"gpu": 1}}
    )
    done = workflow("all", "make_report")
    assert done.returncode == 0, done.stdout
    workflow.output.write_text(done.stdout, encoding="utf-8")
    return workflow


@pytest.fixture
def prepare(toy, tiny, tmp_path):
    """A workflow whose table and images are there; its search takes long enough to be disturbed."""
    table = write_table(tmp_path / "table.tsv", tiny)

    def prepare(checkpoint_minutes=0.01):
        workflow = SlurmWorkflow(tmp_path / "workflow", toy)
        search = TINY["search"] | {"epochs": 6}
        config = {"search": search, "latency": {"cpu": {"table": str(table)}}, "checkpoint_minutes": checkpoint_minutes}
        workflow.configure(TINY | config)
        done = workflow("results/data/digits/dataset.json", "results/latency/cpu.tsv", "--executor", "local")
        assert done.returncode == 0, done.stdout
        return workflow

    return prepare


@contextmanager
def held(workflow, snakemake):
    """The training stands still meanwhile, however fast the machine is. Yields its process."""

    def trains(process):
        script = (process.info["cmdline"] or [])[1:2]
        return process.info["cwd"] == str(workflow.folder) and script and script[0].endswith("train_supernet.py")

    [process] = wait_for(lambda: [*filter(trains, psutil.process_iter(["cmdline", "cwd"]))], snakemake)
    process.suspend()
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def assert_goes_on_and_ends(workflow, snakemake):
    """Snakemake ends well; the search went on, each epoch is there once, and nothing is left of what a resumption needs."""
    assert snakemake.wait(600) == 0, workflow.output.read_text(encoding="utf-8")
    assert "Resuming in epoch" in workflow.said()
    assert_whole(workflow)


def assert_whole(workflow):
    history = pd.read_csv(workflow.results / "search/first/history.tsv", sep="\t")
    weights = history[history.phase == "weights"]
    assert weights.epoch.tolist() == list(range(workflow.config["search"]["epochs"]))
    theta = pd.read_csv(workflow.results / "search/first/theta.tsv", sep="\t")
    assert not theta.duplicated(["epoch", "layer", "op"]).any()
    assert not workflow.checkpoint.exists()
    assert "Traceback" not in workflow.output.read_text(encoding="utf-8")


@pytest.mark.xdist_group("finished")
def test_the_sweep_runs_in_as_few_submissions_as_it_should(finished):
    assert {path.name for path in finished.results.glob("modeldef/*.py")} == {"first.py", "second.py"}
    assert (finished.results / "report.html").exists()
    assert not (finished.folder / "x").exists()
    jobs = finished.jobs()
    assert {job["job_state"] for job in jobs} == {"COMPLETED"}
    # profiling with its plot and validation; 2 searches, 2 × sampling with export and measurement, 2 × judging inside the
    # supernet, 2 trainings, the report with its plots
    assert len(jobs) == 1 + 2 + 2 + 2 + 2 + 1
    assert finished.output.read_text(encoding="utf-8").count("has been submitted with SLURM jobid") == len(jobs)
    assert {"machine", "host", "cores"} <= read_header(finished.results / "latency/cpu.tsv").keys()


@pytest.mark.xdist_group("finished")
def test_jobs_of_a_target_go_to_its_nodes_alone_and_trainings_to_a_gpu_each(finished):
    """As SLURM itself recorded them."""
    exclusive = [job for job in finished.jobs() if job["shared"] == "none"]
    assert len(exclusive) == 3  # latency, and what belongs to the two searches
    assert {(job["nodes"], job["features"]) for job in exclusive} == {("node2", "new")}
    on_gpu = [job for job in finished.jobs() if job["tres_per_job"] == "gres:gpu:1"]
    assert len(on_gpu) == 2 + 2 + 2  # searches, judging, trainings
    assert {job["nodes"] for job in on_gpu} <= set(NODES)
    for job in on_gpu:  # a node has one GPU
        beside = [other for other in on_gpu if other["nodes"] == job["nodes"] and other["job_id"] > job["job_id"]]
        assert all(other["start_time"] >= job["end_time"] for other in beside)


def test_a_training_past_its_time_limit_is_warned_saves_and_goes_on(prepare):
    workflow = prepare(checkpoint_minutes=1000)
    # SLURM looks every 30 s whom to warn, so that the signal comes 30 to 60 s after the first start.
    limit = ("train_supernet:runtime=2 if attempt == 1 else 10", "train_supernet:slurm_extra='--signal=USR1@60'")
    snakemake = workflow.start(("--set-resources", *limit, *ON_FAULTS))
    with held(workflow, snakemake) as training:
        wait_for(lambda: not training.is_running(), snakemake)  # SLURM wakes whom it warns
    assert_goes_on_and_ends(workflow, snakemake)
    assert "Stopped by SIGUSR1" in workflow.said()  # nothing else saves within so long an interval
    assert [job["job_state"] for job in workflow.jobs()] == ["FAILED", "COMPLETED"]


def test_the_job_of_a_node_that_is_gone_runs_elsewhere(toy, prepare):
    workflow = prepare()
    snakemake = workflow.start(ON_SPARE)
    wait_for(workflow.checkpoint.exists, snakemake)
    [job] = workflow.jobs("RUNNING")
    toy.stop_node(job["nodes"])
    try:
        assert_goes_on_and_ends(workflow, snakemake)
    finally:
        toy.start_node(job["nodes"])
        wait_for(lambda: toy.are_idle(SPARE))
    [other] = set(SPARE) - {job["nodes"]}
    assert workflow.jobs()[-1]["nodes"] == other


def test_snakemake_killed_and_started_again_waits_for_its_own_job(prepare):
    workflow = prepare()
    workflow.take_profile(uncommented("slurm", "<<: &gpu {gpu_model: a100}"))
    snakemake = workflow.start()
    wait_for(workflow.checkpoint.exists, snakemake)
    with held(workflow, snakemake):
        os.killpg(snakemake.pid, signal.SIGKILL)
        snakemake.wait()
        [job] = workflow.jobs("RUNNING")  # the job goes on
        assert job["tres_per_job"] == "gres:gpu:a100:1"
        locked = workflow(HISTORY)
        assert locked.returncode != 0
        assert "--unlock" in locked.stdout
        assert workflow("--unlock").returncode == 0
        again = workflow.start()
        wait_for(lambda: "is in use" in workflow.said(), again)
    assert again.wait(600) == 0, workflow.output.read_text(encoding="utf-8")
    assert "The same search has ended meanwhile" in workflow.said()
    assert_whole(workflow)


def test_a_cancelled_training_goes_on_with_what_the_profile_says_in_its_comments(toy, prepare):
    workflow = prepare()
    text = uncommented("slurm", "slurm_partition: ", "constraint: ", "mem_mb_per_cpu: ", *BY_GRES)
    [tmp] = re.findall(r"# slurm_extra: \"'(--tmp=\S+)'\"", text)
    text = text.replace("--signal=USR1@180", f"--signal=USR1@180 {tmp}")
    workflow.take_profile(text.replace("slurm_partition: main", "slurm_partition: faults").replace("rome|milan", "old|new"))
    snakemake = workflow.start(())
    wait_for(workflow.checkpoint.exists, snakemake)
    with held(workflow, snakemake) as training:
        assert training.environ()["CUDA_VISIBLE_DEVICES"] == "0"
    [job] = workflow.jobs("RUNNING")
    asked = ("tres_per_job", "tres_per_node", "memory_per_cpu", "features", "minimum_tmp_disk_per_node")
    assert [job[key] for key in asked] == ["", "gres:gpu:1", 4000, "old|new", 20 * 1024]
    toy.call("scancel", str(job["job_id"]))
    assert_goes_on_and_ends(workflow, snakemake)
