"""Clusters that are not SLURM, and conda, against stand-ins that run on this machine what they are told."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, TINY, with_plugin, with_settings

SOON = ("--latency-wait", "5", "--seconds-between-status-checks", "2", "--cores", "2")
RULE = re.compile(r"^rule (\w+):(?:\n(?!rule ).*)*?\n    group:\n        \"(\w+)\"", re.M)


def profile(name):
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))


BY_GRES = ("<<: &gpu {gpu: 0, gres: gpu:1}", "<<: *gpu")  # commented lines of profiles/slurm


def uncommented(name, *starts):
    """The text of a profile in which those of its commented lines count that begin so; what names a GPU, instead of any."""
    text = (ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8")
    for start in starts:
        text, count = re.subn(rf"^( *)# (?={re.escape(start)})", r"\1", text, flags=re.M)
        assert count == 1, start
    return text.replace("<<: &gpu {} ", "# <<: &gpu {} ") if "<<: &gpu" in str(starts) else text


def test_all_rules_of_a_group_that_measures_have_their_node_for_themselves():
    """Snakemake refuses a group whose rules want different things."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow/rules").glob("*.smk"))
    measure = {rule for rule, group in RULE.findall(text) if group in ("latency", "architectures")}
    assert {"profile_latency", "measure_architecture", "sample_architecture"} <= measure
    slurm = profile("slurm")["set-resources"]
    assert {rule for rule, resources in slurm.items() if resources.get("slurm_extra") == "'--exclusive'"} == measure
    generic = profile("cluster-generic")["set-resources"]
    assert {rule for rule, resources in generic.items() if resources.get("place") == "excl"} == measure


def test_all_rules_that_compute_on_a_gpu_ask_for_it_by_gres_where_one_line_says_so():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = re.split(r"^rule ", text, flags=re.M)
    compute = {rule.split(":")[0] for rule in rules if re.search(r"^        gpu=(?!gpus_to_measure)", rule, re.M)}
    assert {"train_supernet", "train_architecture", "evaluate_supernet"} <= compute
    resources = yaml.safe_load(uncommented("slurm", *BY_GRES))["set-resources"]
    assert {rule for rule, own in resources.items() if (own.get("gpu"), own.get("gres")) == (0, "gpu:1")} == compute


def test_a_target_may_ask_for_its_gpu_by_gres(workflow):
    workflow.configure(with_settings(latency__cpu={"device": "cuda", "resources": {"gres": "gpu:a100:1"}}))
    assert "gres=gpu:a100:1, gpu=0" in workflow("--dry-run", "results/latency/cpu.tsv").stdout


@pytest.mark.parametrize("name", ["slurm", "cluster-generic", "kubernetes"])
def test_what_the_default_profile_keeps_safe_the_others_do_too(name):
    """They replace it."""
    default, other = profile("default"), profile(name)
    for key in ("rerun-incomplete", "show-failed-logs", "max-checksum-file-size"):
        assert other[key] == default[key]
    assert other["resources"]["gpu"] >= 1
    assert other["retries"] >= 1


QSUB = """#!/bin/bash
echo "$@" >> $TOY/submitted
id=$(wc -l < $TOY/submitted).toy
if [[ "$*" == *ngpus=1* && ! -e $TOY/lost ]]; then
    touch $TOY/lost
    echo 271 > $TOY/$id.code
else
    (setsid bash "${@: -1}" > $TOY/$id.out 2>&1; echo $? > $TOY/$id.code) > /dev/null 2>&1 &
fi
echo $id
"""
QSTAT = """#!/bin/bash
id=${@: -1}
echo "Job Id: $id"
if [[ -e $TOY/$id.code ]]; then
    printf '    job_state = F\\n    Exit_status = %s\\n' $(cat $TOY/$id.code)
else
    echo '    job_state = R'
fi
"""


@pytest.mark.cluster
def test_a_scheduler_of_commands_runs_everything_and_a_lost_training_again(workflow, tmp_path):
    toy = tmp_path / "toy"
    toy.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT)):
        (toy / name).write_text(text, encoding="utf-8")
        (toy / name).chmod(stat.S_IRWXU)
    environment = with_plugin("slurm") | {"TOY": str(toy), "PATH": f"{toy}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/cluster-generic", *SOON]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 600}
    done = subprocess.run(command, cwd=workflow.folder, env=environment, **options)
    assert done.returncode == 0, done.stdout
    assert (workflow.folder / "results/modeldef/first.py").exists()
    submitted = (toy / "submitted").read_text(encoding="utf-8").splitlines()
    assert len(submitted) == 4  # profiling, training, training again, sampling with export
    measuring = [line for line in submitted if "place=excl" in line]
    assert len(measuring) == 2
    trainings = [re.sub(r"\S+$", "", line) for line in submitted if "ngpus=1" in line]
    common = "-V -j oe -o .snakemake/log/ -q workq -l place=free -l select=1:ncpus=1:ngpus=1:mem="
    assert trainings == [f"{common}{mem}mb -l walltime=43200 " for mem in (16000, 32000)]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("job_state = R", "running"),
        ("job_state = F\n    Exit_status = 0", "success"),
        ("job_state = F\n    Exit_status = 10", "failed"),
        ("job_state = F", "failed"),  # deleted before it ran
        ("qstat: Unknown Job Id 7.toy", "failed"),
        ("qstat: cannot connect to server", "running"),
    ],
)
def test_the_status_of_a_job_in_the_words_of_the_plugin(tmp_path, answer, status):
    (tmp_path / "qstat").write_text(f"#!/bin/bash\necho '{answer}'\n", encoding="utf-8")
    (tmp_path / "qstat").chmod(stat.S_IRWXU)
    command = [ROOT / "profiles/cluster-generic/status.sh", "7.toy"]
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True)
    assert done.stdout == f"{status}\n"


@contextmanager
def kubernetes(pods: Path, evict):
    """What Snakemake asks of a Kubernetes: its pods are processes here, each in a folder of its own. Yields address and jobs.

    As soon as `evict()` is true the pod that Snakemake asks for is killed, once.
    """
    jobs, processes, evicted = {}, {}, []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = body["metadata"]["name"]
            if self.path.endswith("/jobs"):
                jobs[name] = body
                [container] = body["spec"]["template"]["spec"]["containers"]
                (pods / name).mkdir()
                environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": os.environ["HOME"]}
                with open(pods / f"{name}.log", "w", encoding="utf-8") as log:
                    streams = {"stdout": log, "stderr": subprocess.STDOUT}
                    command = [*container["command"], *container["args"]]
                    processes[name] = subprocess.Popen(
                        command, cwd=pods / name, env=environment, start_new_session=True, **streams
                    )
            self.answer(body)

        def do_GET(self):
            if "/jobs/" in self.path:
                name = self.path.split("/")[-2]
                if not evicted and evict():
                    evicted.append(name)
                    os.killpg(processes[name].pid, signal.SIGKILL)
                    processes[name].wait()
                code = processes[name].poll()
                status = {"active": 1} if code is None else {"failed": 1} if code else {"succeeded": 1}
                self.answer(jobs[name] | {"status": status})
            else:
                self.answer({"items": []})

        def do_DELETE(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer({"kind": "Status", "status": "Success"})

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", jobs
    finally:
        server.shutdown()
        for process in processes.values():
            process.kill()


@pytest.mark.cluster
@pytest.mark.skipif(not shutil.which("rsync"), reason="the storage plugin copies with rsync")
def test_pods_get_what_they_need_bring_results_to_the_storage_and_go_on_after_an_eviction(workflow, tmp_path):
    workflow.configure(TINY | {"search": TINY["search"] | {"epochs": 10}, "checkpoint_minutes": 0.01})
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "toy", "users": [{"name": "toy", "user": {}}]}
    config |= {"contexts": [{"name": "toy", "context": {"cluster": "toy", "user": "toy"}}]}
    volume = tmp_path / "volume"
    for folder in (tmp_path / "pods", volume):
        folder.mkdir()
    for command in (("init", "--quiet"), ("add", ".")):  # the files that git knows go with a pod
        subprocess.run(["git", *command], cwd=workflow.folder, check=True)
    with kubernetes(tmp_path / "pods", lambda: list(volume.glob("local/**/checkpoint.pt"))) as (address, jobs):
        config["clusters"] = [{"name": "toy", "cluster": {"server": address}}]
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/kubernetes", *SOON]
        command += ["--default-storage-prefix", volume / "storage", "--remote-job-local-storage-prefix", volume / "local"]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 600}
        environment = with_plugin("kubernetes") | {"KUBECONFIG": str(tmp_path / "kubeconfig")}
        done = subprocess.run(command, cwd=workflow.folder, env=environment, **options)
        logs = "\n".join(path.read_text(encoding="utf-8") for path in (tmp_path / "pods").glob("*.log"))
        assert done.returncode == 0, done.stdout + logs
    assert (volume / "storage/results/modeldef/first.py").exists()
    specs = [job["spec"]["template"]["spec"] for job in jobs.values()]
    assert len(specs) == 4  # profiling, training, training again, sampling with export
    assert "Resuming in epoch" in logs
    training, again = [spec for spec in specs if "train_supernet" in spec["containers"][0]["args"][1]]
    assert again["containers"][0]["resources"]["limits"]["memory"] == "32000M"
    [container] = training["containers"]
    assert container["image"] == "fbnet:latest"
    for kind in ("limits", "requests"):
        assert container["resources"][kind].items() >= {"nvidia.com/gpu": "1", "memory": "16000M"}.items()
    assert {"name": "fbnet", "mountPath": "/fbnet"} in container["volumeMounts"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in training["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == ["fbnet"]


CONDA = """#!/bin/bash
toy=$(dirname "$0")
case "$1 $2" in
    "info --json") echo "{\\"conda_prefix\\": \\"$toy/base\\", \\"platform\\": \\"linux-64\\"}" ;;
    "--version ") echo "conda 99.0.0" ;;
    "config --get") echo '{"get": {"channel_priority": "strict"}}' ;;
    "env create")
        while [[ "$1" != --file ]]; do shift; done
        file=$2
        while [[ "$1" != --prefix ]]; do shift; done
        mkdir -p "$2/bin"
        cp "$file" "$toy/made_from.yaml"
        printf '#!/bin/sh\\nunset PYTHONPATH\\necho "$1" >> %s/ran\\nexec %s "$@"\\n' "$toy" "$PYTHON" > "$2/bin/python"
        chmod +x "$2/bin/python" ;;
esac
"""


def test_with_conda_a_rule_runs_in_the_environment_that_its_file_describes(workflow, tmp_path):
    """A stand-in for conda makes an environment whose python is this one, and tells what it ran; Snakemake's own has little."""
    toy = tmp_path / "conda"
    (toy / "base/bin").mkdir(parents=True)
    (toy / "base/bin/activate").write_text('export PATH="$1/bin:$PATH"\n', encoding="utf-8")
    (toy / "conda").write_text(CONDA, encoding="utf-8")
    (toy / "conda").chmod(stat.S_IRWXU)
    absent = ["torch", "torchvision", "numpy", "pandas", "scipy", "sklearn", "tqdm", "matplotlib", "onnx", "tensorboard"]
    (toy / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n", encoding="utf-8")
    path = f"{toy}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(toy), "PYTHON": sys.executable}
    done = workflow("results/data/digits/dataset.json", "--sdm", "conda", env=environment)
    assert done.returncode == 0, done.stdout
    assert (toy / "made_from.yaml").read_bytes() == (ROOT / "workflow/envs/fbnet.yaml").read_bytes()
    [script] = (toy / "ran").read_text(encoding="utf-8").split()
    assert script.endswith("workflow/scripts/download_cifar.py")
