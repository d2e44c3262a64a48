"""The whole workflow on a tiny configuration, as a user runs it: what it makes, and what it makes again after which change."""

import ast
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from conftest import BUDGET, ROOT, TINY, existing, with_settings, write_table
from fbnet.architecture.sampling import described
from fbnet.errors import InputError
from fbnet.latency import read_header, read_table
from fbnet.latency.validation import draw
from fbnet.provenance import code_hashes
from fbnet.search import read_supernet

TRAIN_AND_BELOW = {"train_supernet", "sample_architecture", "export_modeldef", "export_model"}
LATENCY = {"profile_latency", "plot_latency", "validate_latency"}
RECORDS = (("logs", ".log"), ("benchmarks", ".tsv"))  # of every rule
ALL = TRAIN_AND_BELOW | LATENCY | {"download_cifar"}
SAMPLE_AND_BELOW = TRAIN_AND_BELOW - {"train_supernet"}


def test_it_runs_from_nothing_to_a_model_definition(finished_workflow):
    results = finished_workflow.folder / "results"
    made = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    assert made - {"models/first.timm.safetensors"} == {  # which is there if timm can express the architecture
        *(f"data/digits/{name}" for name in ("dataset.json", "train_images.npy", "train_labels.npy")),
        *("data/digits/test_images.npy", "data/digits/test_labels.npy"),
        *(f"latency/cpu.{suffix}" for suffix in ("tsv", "svg", "validation.tsv", "validation.svg")),
        *("latency/cpu/accepted.tsv", "latency/cpu/measured.tsv"),
        *(f"search/first/{name}" for name in ("supernet.pt", "theta.tsv", "history.tsv", ".lock")),
        "architectures/first.tsv",
        *("modeldef/first.py", "modeldef/first.json"),
        *(f"models/first.{suffix}" for suffix in ("pt2", "onnx", "safetensors", "md")),
        *(f"{kind}/{rule}/cpu{suffix}" for rule in LATENCY for kind, suffix in RECORDS),
        *(f"{kind}/download_cifar/digits{suffix}" for kind, suffix in RECORDS),
        *(f"{kind}/{rule}/first{suffix}" for rule in TRAIN_AND_BELOW for kind, suffix in RECORDS),
    }
    samples = pd.read_csv(results / "architectures/first.tsv", sep="\t")
    assert list(samples) == ["name", "ops", "log_prob", "latency_us", "macs", "params"]
    assert 1 <= len(samples) <= 4
    [assignment] = ast.parse((results / "modeldef/first.py").read_text(encoding="utf-8")).body
    assert sorted(ast.literal_eval(assignment.value)) == sorted(samples["name"])
    document = json.loads((results / "modeldef/first.json").read_text(encoding="utf-8"))
    assert set(document["architectures"]) == set(samples["name"])
    assert {"settings", "space", "code", "table_sha256", "data_sha256", "versions", "host"} <= set(document["provenance"])
    assert document["provenance"]["settings"]["seed"] == 0
    end = finished_workflow.output.partition("\nSearch first: its derived architecture\n")[2]
    for text in ("µs predicted, not measured", "M MACs", "results/models/first.onnx", "results/modeldef/first.py"):
        assert text in end
    for target in ("results/trained/first.onnx", "make_report"):
        assert re.search(rf"    \S*snakemake {target} --cores 2\n", end), target
    assert re.search(r"\nLatency table cpu: predicted within .*% in the mean over 4 random networks, allowed 10%: ", end)
    assert "latency of 4 random networks" in finished_workflow.output
    epochs = re.findall(r"epoch (\d)/2: ", (results / "logs/train_supernet/first.log").read_text(encoding="utf-8"))
    assert epochs == ["1", "2"]
    assert len(re.findall(r" train_supernet first: epoch \d/2: ", finished_workflow.output)) == 2


def test_nothing_to_do_after_touch_or_move(copy_of_finished):
    # copied with new times, to another folder
    folder = copy_of_finished.folder
    elsewhere = folder.with_name("elsewhere")
    shutil.copytree(folder, elsewhere, copy_function=shutil.copyfile)
    moved = existing(elsewhere, TINY)
    for path in (*elsewhere.glob("workflow/**/*"), elsewhere / "config.yaml", elsewhere / "Snakefile"):
        path.touch()
    assert moved.planned() == set()
    assert "Nothing to be done" in moved().stdout


USERS = {
    "search/supernet": {"train_supernet"},
    "search/search": {"train_supernet"},
    "search/mixed": {"train_supernet"},
    "search/fused": {"train_supernet"},
    "training/loop": {"train_supernet", "train_architecture"},
    "exclusive": {"download_cifar", "train_supernet", "train_architecture"},
    "data/shards": {"download_cifar"},
    "data/batches": {
        *("train_supernet", "train_architecture", "sample_architecture"),
        *("evaluate_supernet", "explain_choice", "export_model"),
    },
    "settings": {"train_supernet", "train_architecture"},
    "evaluation/retraining": {"train_architecture"},
    "evaluation/trained": {"train_architecture", "learn_entrants", "finish_race", "export_model"},
    "latency/profiling": {"profile_latency", "validate_latency", "measure_architecture"},
    "latency/drift": {"profile_latency", "validate_latency", "measure_architecture"},
    "latency/acceptance": {"profile_latency"},
    "latency/foreign": {"profile_latency", "validate_latency"},
    "latency/elsewhere": {"validate_latency"},
    "latency/validation": {"validate_latency", "measure_architecture"},
    "architecture/sampling": {"sample_architecture", "sample_baseline", "learn_entrants", "explain_choice"},
    "architecture/program": {"sample_architecture", "sample_baseline", "learn_entrants", "explain_choice", "evaluate"},
    "architecture/rules": {
        *("sample_architecture", "sample_baseline", "learn_entrants", "explain_choice", "evaluate", "make_report"),
    },
    "architecture/entrants": {"sample_architecture", "learn_entrants"},
    "architecture/alternatives": {"explain_choice"},
    "architecture/budget": {
        *("sample_architecture", "sample_baseline", "learn_entrants", "explain_choice"),
        *("train_supernet", "plot_search", "evaluate", "export_model"),
    },
    "space/modeldef": {"export_modeldef", "export_model"},
    "architecture/lookup": {"export_model"},
    "space/zoo": {
        *("sample_architecture", "sample_baseline", "learn_entrants", "explain_choice"),
        *("train_supernet", "plot_search", "evaluate", "export_model"),
    },
    "report/latency_plots": {"plot_latency", "validate_latency"},
    "report/style": {"plot_latency", "validate_latency", "plot_search", "plot_front", "make_report"},
    "report/search_plots": {"plot_search"},
    "report/evaluation_plots": {"make_report"},
    "report/diagram": {"plot_search", "make_report"},
    "evaluation/evidence": {"evaluate"},
    "evaluation/significance": {"evaluate", "make_report"},
    "evaluation/words": {"evaluate", "plot_latency", "validate_latency", "plot_search", "plot_front", "make_report"},
    "evaluation/results": {"evaluate"},
    "evaluation/random_search": {"evaluate"},
    "evaluation/ranking": {"evaluate"},
    "evaluation/findings": {"evaluate"},
    "evaluation/diagnosis": {"evaluate"},
    "evaluation/derived": {"evaluate"},
    "report/page": {"make_report"},
    "report/evaluation": {"make_report"},
    "report/headline": {"make_report"},
    "report/ranking_plot": {"make_report"},
    "report/words": {"plot_latency", "validate_latency", "plot_search", "plot_front", "make_report"},
    "architecture/card": {"export_model"},
    "evaluation/weights": {"export_model"},
    "data/cifar10": {"download_cifar"},
    "config": set(),
    "evaluation/plan": set(),
    "evaluation/summary": set(),
}


@pytest.mark.parametrize(("module", "scripts"), USERS.items(), ids=USERS)
def test_code_is_that_of_whoever_uses_the_module(module, scripts):
    """An edit changes the hashes of these scripts alone."""
    found = {path.stem for path in (ROOT / "workflow/scripts").glob("*.py") if f"fbnet/{module}.py" in code_hashes(path)}
    assert found - {"describe_architecture", "describe_space"} == scripts  # on which nothing depends


@pytest.mark.parametrize(
    ("module", "rules"),
    [("search/supernet", TRAIN_AND_BELOW), ("space/operators", ALL - {"download_cifar"}), ("config", set())],
)
def test_an_edit_reruns_whoever_uses_the_module(copy_of_finished, module, rules):
    path = copy_of_finished.folder / f"workflow/scripts/fbnet/{module}.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nEDITED = True\n", encoding="utf-8")
    assert copy_of_finished.planned() == rules


def test_comments_docstrings_and_layout_rerun_nothing(copy_of_finished):
    for path in (copy_of_finished.folder / "workflow/scripts").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
                node.body[0].value.value = "Other words."
        path.write_text(
            f"# another comment\n{ast.unparse(tree)}\n", encoding="utf-8"
        )  # without comments, and in lines of its own
    assert copy_of_finished.planned() == set()


UNUSED = {
    "search__loss": {"weight": 0.3},  # of the form that is not used
    "latency__cpu": {"threads": 1, "cost": "params", "runs": 3},  # the default, and what is not used
    "validation__error": 0.2,
    "new_measurement": "refuse",
    "checkpoint_minutes": 1,
    "threads": 2,
    "dataset__checksum": None,  # of another data set
    "latency__other": {"runs": 5},  # no search uses it
    "train__epochs": 7,  # of the evaluation
}


@pytest.mark.parametrize(
    ("config", "rules"),
    [
        (with_settings(**UNUSED), set()),
        (with_settings(search__loss={"alpha": 0.3}), TRAIN_AND_BELOW),
        (with_settings(search__sampling="single_path"), TRAIN_AND_BELOW),
        (with_settings(latency__cpu__runs=4), ALL - {"download_cifar"}),
        (with_settings(validation__networks=5), {"validate_latency"}),
        (with_settings(sample__count=5), SAMPLE_AND_BELOW),
        (with_settings(search__latency_budget="2s"), SAMPLE_AND_BELOW),
        (with_settings(searches__second={"seed": 1}), TRAIN_AND_BELOW),
    ],
    ids=["unused", "alpha", "sampling", "runs", "networks", "samples", "budget", "another search"],
)
def test_a_changed_setting_reruns_what_depends_on_it(copy_of_finished, config, rules):
    copy_of_finished.configure(config)
    assert copy_of_finished.planned() == rules


POINT = {
    "train_supernet",
    "sample_architecture",
    "train_architecture",
    "measure_architecture",
    "evaluate_supernet",
    "plot_search",
}
REPORT = {"evaluate", "make_report"}
RULE = {"sample_baseline", "train_architecture", "measure_architecture"}
RANKED = RULE | {"evaluate_supernet"}


def test_the_evaluation_and_what_reruns_of_it(evaluated_workflow, copy_of_evaluated):
    workflow, results = copy_of_evaluated, copy_of_evaluated.folder / "results"
    summary = pd.read_csv(results / "evaluation/summary.tsv", sep="\t")
    random, ranked = ["random_cpu_2s_1", "random_cpu_2s_2"], ["ranked_cpu_1", "ranked_cpu_2", "ranked_cpu_3"]
    assert summary.network.tolist() == ["first", *random, "rule_macs_cpu_2s", *ranked, "random_search_first_cpu_2s"]
    runs = pd.read_csv(results / "evaluation/runs.tsv", sep="\t").set_index(["network", "seed"])
    assert len(runs) == 2 * 7
    for row in summary.to_dict("records")[:-1]:
        histories = [pd.read_csv(results / f"training/{row['network']}/seed_{seed}/history.tsv", sep="\t") for seed in (0, 1)]
        tests, validations = ([float(h[h.phase == phase].top1.iloc[-1]) for h in histories] for phase in ("test", "validation"))
        assert row["top1"] == pytest.approx(sum(tests) / 2, rel=1e-4)
        assert row["top1_sd"] == pytest.approx(abs(tests[0] - tests[1]) / 2**0.5, abs=1e-5)
        assert row["validation_top1"] == pytest.approx(sum(validations) / 2, rel=1e-4)
        assert row["training_s"] == pytest.approx(sum(h.seconds.sum() for h in histories) / 2, rel=1e-4)
        assert row["latency_us"] == pytest.approx(row["measured_us"] / row["level"], rel=1e-4)
        assert math.isnan(row["budget_us"]) if row["kind"] == "ranked" else row["budget_us"] == 2e6
        assert runs.top1[row["network"]].tolist() == pytest.approx(tests, rel=1e-4)
    first, rule, search = summary.iloc[0], summary[summary.kind == "rule"].iloc[0], summary.iloc[-1]
    assert rule.macs == summary.macs.max()  # no network takes two seconds
    pool = summary[summary.network.isin(random)]
    assert (search.kind, search.pool) == ("random_search", 2)
    assert search.drawn == max(1, int((first.search_s + first.training_s) / pool.training_s.mean()))
    if search.drawn == 1:  # the mean, with the standard error of a mean
        expected = pool.top1.mean()
    else:  # the better by validation of the two, in each training run
        expected = runs.loc[random].groupby("seed").apply(lambda run: run.top1[run.validation_top1[::-1].idxmax()]).mean()
    assert search.top1 == pytest.approx(expected, rel=1e-4)
    samples = pd.read_csv(results / "architectures/first.tsv", sep="\t")
    assert (first.ops, first.predicted_us) == (samples.ops[0], pytest.approx(samples.latency_us[0], rel=1e-5))
    assert first.search_s == pytest.approx(pd.read_csv(results / "search/first/history.tsv", sep="\t").seconds.sum(), rel=1e-4)
    compared = pd.read_csv(results / "evaluation/comparisons.tsv", sep="\t")
    assert compared[["against", "other"]].to_numpy().tolist() == [
        ["random", "random_cpu_2s"],
        ["random_search", "random_search_first_cpu_2s"],
        ["macs", "rule_macs_cpu_2s"],
    ]
    order = pd.read_csv(results / "evaluation/ranking.tsv", sep="\t")
    enough = summary[summary.network.isin(random + ranked)].ops.nunique() == 5  # two draws may have met
    assert order.by.tolist() == (["supernet", "macs", "params", "latency", "chance", "training"] if enough else [])
    page = (results / "report.html").read_text(encoding="utf-8")
    for text in ("random_cpu_2s_2", "within the table", "Within 2,000 ms on cpu, first reaches"):
        assert text in page, text
    assert "Within 2,000 ms on cpu, first reaches" in " ".join(evaluated_workflow.output.split())  # the summary that is printed
    bundled = workflow("make_report", "--report", "bundle.zip")
    assert bundled.returncode == 0, bundled.stdout
    assert (workflow.folder / "bundle.zip").stat().st_size > 1000

    assert workflow.planned("make_report") == set()
    for changes, planned, trained in (
        ({"train__epochs": 4}, {"train_architecture"} | REPORT, {"first", "rule_macs_cpu_2s", *random, *ranked}),
        ({"evaluation__runs": 4}, {"measure_architecture"} | REPORT, set()),
        ({"evaluation__rules": ["macs", "log_macs"]}, RULE | REPORT, {"rule_log_macs_cpu_2s"}),
        ({"evaluation__ranked": 6}, RANKED | REPORT, {*ranked, "ranked_cpu_4"}),
    ):
        workflow.configure(with_settings(searches={"first": BUDGET}, **changes))
        jobs = workflow.jobs("make_report")
        assert {rule for rule, _ in jobs} == planned, changes
        assert {wildcards["network"] for rule, wildcards in jobs if rule == "train_architecture"} == trained, changes
        baselines = {wildcards["baseline"] for rule, wildcards in jobs if rule == "sample_baseline"}
        assert len(baselines) == ("sample_baseline" in planned), changes  # the one that changed, and no other
    workflow.configure(with_settings(searches={"first": {}}))
    assert workflow.planned("make_report") >= {"sample_baseline", "train_architecture", "measure_architecture"} | REPORT
    workflow.configure(with_settings(searches={"first": BUDGET, "second": BUDGET | {"seed": 1}}))
    dry = workflow("make_report", "--dry-run", "--quiet", "rules").stdout
    planned = {line.split()[0]: int(line.split()[1]) for line in dry.splitlines() if re.fullmatch(r"\w+ +\d+", line)}
    assert planned.pop("total") == sum(planned.values())
    assert planned == dict.fromkeys(POINT | REPORT, 1) | {"train_architecture": 2}  # those of the new point alone


def test_without_a_budget_baselines_keep_to_the_latency_of_the_network_found(script, tiny, tmp_path):
    made = write_table(tmp_path / "table.tsv", tiny, latency_us=lambda cell: 10.0 * cell.c_out * cell.expansion)
    table = read_table(made, tiny, 10)
    found = described(table, 10, {"found": ("ir_k5_e3", "ir_k3_s2", "ir_k5_e3")})
    found.to_csv(tmp_path / "found.tsv", sep="\t", index=False, float_format="%.6f")
    arguments = [
        "--table",
        tmp_path / "table.tsv",
        "--space",
        "tiny",
        "--architectures",
        tmp_path / "found.tsv",
        "--out",
        tmp_path / "r.tsv",
    ]
    done = script("sample_baseline", *arguments, "--count", 3, "--name", "random_like_found")
    assert done.returncode == 0, done.stderr
    drawn = pd.read_csv(tmp_path / "r.tsv", sep="\t")
    assert drawn.name.tolist() == ["random_like_found_1", "random_like_found_2", "random_like_found_3"]
    assert drawn.latency_us.max() <= found.latency_us[0]
    chosen = script("sample_baseline", *arguments, "--rule", "macs", "--name", "rule_macs_like_found")
    assert chosen.returncode == 0, chosen.stderr
    [rule] = pd.read_csv(tmp_path / "r.tsv", sep="\t").to_dict("records")
    assert rule["name"] == "rule_macs_like_found"
    assert rule["latency_us"] <= found.latency_us[0]
    assert rule["macs"] >= max(found.macs[0], drawn.macs.max())
    loose = [
        *arguments[:4],
        *arguments[6:],
        "--latency-budget",
        "2s",
        "--spread",
        "--count",
        5,
        "--name",
        "ranked_cpu",
        "--seed",
        20,
    ]
    spread = script("sample_baseline", *loose)
    assert spread.returncode == 0, spread.stderr
    drawn = pd.read_csv(tmp_path / "r.tsv", sep="\t")
    assert drawn.name.tolist() == [f"ranked_cpu_{number}" for number in range(1, 6)]
    assert drawn.latency_us[0] <= (table.least_us + table.most_us) / 2  # of what the slowest takes, not of two seconds
    refused = script("sample_baseline", *arguments, "--count", 1000)
    assert refused.returncode == 1
    assert "1000 random ones are wanted: lower evaluation.random or evaluation.ranked" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--forcerun", "profile_latency", "profile_latency"],
        ["--forcerun", "profile_latency"],
        ["profile_latency", "--forcerun", "profile_latency"],
    ],
    ids=" ".join,
)
def test_profiling_again_runs_nothing_else(copy_of_finished, arguments):
    assert copy_of_finished.planned(*arguments) == {"profile_latency"}


def test_a_new_table_retrains_and_the_same_does_not(copy_of_finished):
    table = copy_of_finished.folder / "results/latency/cpu.tsv"
    before = table.read_bytes()
    forced = ("--forcerun", "profile_latency", "profile_latency", "--config")
    for decision, planned in (("refuse", set()), ("accept", ALL - {"profile_latency", "download_cifar"})):
        done = copy_of_finished(*forced, f"new_measurement={decision}")
        assert done.returncode == 0, done.stdout
        assert (table.read_bytes() == before) == (decision == "refuse")
        assert copy_of_finished.planned() == planned
    assert "Updated input files: results/latency/cpu.tsv" in copy_of_finished("--dry-run").stdout
    assert (copy_of_finished.folder / "results/latency/cpu/before.tsv").read_bytes() == before
    table.write_bytes(before)
    assert copy_of_finished.planned() == set()


def test_other_threads_measure_and_train_again_and_the_reason_is_told(copy_of_finished):
    copy_of_finished.configure(with_settings(latency__cpu__threads=2))
    assert copy_of_finished.planned() == ALL - {"download_cifar"}
    assert "--threads=2" in copy_of_finished("--dry-run").stdout


def test_a_lost_validation_is_made_again_and_trains_nothing(copy_of_finished):
    (copy_of_finished.folder / "results/latency/cpu.validation.tsv").unlink()
    assert copy_of_finished.planned() == {"validate_latency"}


def test_a_strict_search_does_not_start_from_a_bad_table(copy_of_finished):
    copy_of_finished.configure(with_settings(validation__strict=True, validation__error=1e-6))
    failed = copy_of_finished()
    assert failed.returncode != 0
    assert "latency/cpu.tsv predicts networks with a mean error of" in failed.stdout
    assert "Traceback" not in failed.stdout
    assert not (copy_of_finished.folder / "results/search/first/checkpoint.pt").exists()


def test_a_table_of_other_hardware_is_not_held_against_this(copy_of_finished):
    table = copy_of_finished.folder / "results/latency/cpu.tsv"
    table.write_text(re.sub("# machine: .*", "# machine: another processor", table.read_text(encoding="utf-8")), encoding="utf-8")
    failed = copy_of_finished("results/latency/cpu.validation.tsv", "--rerun-triggers", "input")
    assert failed.returncode != 0, failed.stdout
    assert "was measured on another processor" in failed.stdout
    assert "Traceback" not in failed.stdout


def test_searches_for_targets_of_other_kinds_run_and_nothing_else(copy_of_finished):
    workflow, results = copy_of_finished, copy_of_finished.folder / "results"
    targets = {"onnx": {"engine": "onnxruntime", "dtype": "int8", "runs": 3}, "macs": {"engine": "analytic"}}
    one_shot = {"method": "one_shot", "shared_weights": True, "rated": 40, "weights": {"warmup_epochs": 1}}
    searches = {"first": {}, "for_macs": {"target": "macs"} | one_shot, "for_onnx": {"target": "onnx"} | one_shot}

    def configure(**targets):
        changes = {"searches": searches, "search__target": "cpu", "sample__judged": 6}
        workflow.configure(with_settings(latency=TINY["latency"] | targets, **changes))

    configure(**targets)
    before = (results / "search/first/theta.tsv").stat().st_mtime_ns
    done = workflow(*(f"results/architectures/{search}.tsv" for search in searches), "results/models/for_onnx.onnx")
    assert done.returncode == 0, done.stdout
    assert (results / "search/first/theta.tsv").stat().st_mtime_ns == before
    assert read_header(results / "latency/onnx.tsv")["engine"] == "onnxruntime"
    assert (results / "models/for_onnx.int8.onnx").exists()
    assert "| int8 | for_onnx.int8.onnx: top-1 " in (results / "models/for_onnx.md").read_text(encoding="utf-8")
    dry = workflow("--dry-run").stdout
    assert "results/latency/onnx.validation.tsv" in dry
    assert "results/latency/macs.validation.tsv" not in dry
    counted = pd.read_csv(results / "architectures/for_macs.tsv", sep="\t")
    assert (counted.macs / counted.latency_us).to_list() == pytest.approx([1000] * len(counted), rel=1e-3)
    assert counted.supernet_top1.between(0, 1).all()  # of those judged inside the supernet, the best
    assert counted.supernet_top1.is_monotonic_decreasing
    configure(**targets | {"macs": {"engine": "analytic", "cost": "params"}})
    dry = workflow("--dry-run", "results/architectures/for_macs.tsv").stdout
    assert {"profile_latency", "sample_architecture"} <= set(re.findall(r"rule (\w+):", dry))
    assert "train_supernet" not in dry  # which no latency has gone into
    searches["then_for_cpu"] = {"target": "cpu", "latency_budget": "0.9 * k3_e1"} | one_shot
    configure(**targets)
    dry = workflow("--dry-run", "results/models/then_for_cpu.onnx").stdout
    assert set(re.findall(r"rule (\w+):", dry)) == {"sample_architecture", "export_modeldef", "export_model"}
    assert "results/search/for_macs/supernet.pt" in dry  # that of all who agree in its training, by the first one's name
    assert not (results / "search/for_onnx").exists()
    # with budgets of several kinds
    alone = {"random": 0, "ranked": 0, "rules": [], "trainings": 1}
    shared = {"latency": TINY["latency"] | targets, "search__target": "cpu", "evaluation": TINY["evaluation"] | alone}
    shared |= {"searches": {"for_macs": searches["for_macs"]}, "train__teacher": 0.5}
    limited = {"limited": {"target": "cpu", "budgets": {"onnx": "1s", "params": "2k", "memory": "12kB"}} | one_shot}
    workflow.configure(with_settings(**shared | {"sample": {"judged": 6}, "searches": shared["searches"] | limited}))
    done = workflow("results/choice/limited.tsv")
    assert done.returncode == 0, done.stdout
    choice = pd.read_csv(results / "choice/limited.tsv", sep="\t")
    [chosen], [runner_up] = (choice[choice.what == what].to_dict("records") for what in ("chosen", "runner-up"))
    assert chosen["params"] <= 2000
    assert chosen["memory"] <= 12000
    more = choice[choice.what == "more"].set_index("budget")
    assert {*more.index} == {"budgets.onnx", "budgets.params", "budgets.memory"}
    assert (more.used["budgets.params"], more.used["budgets.memory"]) == (chosen["params"], chosen["memory"])
    assert more.binds["budgets.onnx"] == "no"  # nothing takes a second
    assert (more.log_prob >= runner_up["log_prob"]).all()
    # what is chosen learns from its supernet where there is a teacher, whoever runs a race from the labels alone
    taught = workflow("--dry-run", "-p", "results/trained/for_macs.onnx").stdout
    assert '"teacher": 0.5,' in taught
    assert "--teacher=results/search/for_macs/supernet.pt" in taught
    workflow.configure(
        with_settings(race={"epochs": [2], "rules": [], "entrants": 2, "learned": 0}, sample={"count": 1}, **shared)
    )
    entrants = workflow("--dry-run", "-p", "results/race/for_macs/race.tsv").stdout
    assert entrants.count('"teacher": 0,') == 2
    assert "--teacher" not in entrants


def test_what_a_target_s_command_is_filled_with_is_no_wildcard(workflow):
    command = {"engine": "command", "command": "time {model} {threads}", "pattern": "(?P<latency>[0-9]+)"}
    workflow.configure(with_settings(latency={"there": command}, search__target="there"))
    assert {"profile_latency", "make_report"} <= workflow.planned("make_report")


def test_a_wrong_config_stops_a_dry_run_without_a_traceback(workflow):
    for config, message in (
        (with_settings(search__epochs=0), "search.epochs is 0, but must be a whole number at least 1"),
        (with_settings(searches__first={"target": "phone"}), "searches.first: target is 'phone'"),
    ):
        workflow.configure(config)
        done = workflow("--dry-run")
        assert done.returncode != 0
        assert message in done.stdout
        assert "Traceback" not in done.stdout
    (workflow.folder / "config.yaml").write_text("searches:\n  a: {}\n  a: {}\n", encoding="utf-8")
    done = workflow("--dry-run")
    assert "the key 'a' is there 2 times" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_configfile_stands_for_itself_and_a_table_that_is_brought_is_used_as_it_is(workflow, tiny, tmp_path):
    hostile = "my 'results' \"$(touch x)\"; touch x"
    table = workflow.folder / "my 'phone'\n\"$(touch x)\"; touch x"
    write_table(table, tiny)
    own = tmp_path / "own.yaml"
    own.write_text(
        yaml.safe_dump(
            with_settings(searches={"own": {}}, results=hostile, latency={"phone": {"table": table.name}}, search__target="phone")
        ),
        encoding="utf-8",
    )
    made, results = f"{hostile}/architectures/own.tsv", workflow.folder / hostile
    call = (made, "--configfile", own, "--config", "search={epochs: 3}")
    done = workflow(*call)
    assert done.returncode == 0, done.stdout
    assert pd.read_csv(results / "search/own/theta.tsv", sep="\t").epoch.max() == 2
    assert (results / "latency/phone.tsv").read_bytes() == table.read_bytes()
    assert (workflow.folder / made).exists()
    assert not (workflow.folder / "x").exists()
    assert workflow.planned(*call) == set()

    write_table(table, tiny, change=lambda rows: rows[1:])
    failed = workflow(*call)
    assert failed.returncode != 0
    assert "no row for layer stem, conv_k3" in failed.stdout
    assert "Traceback" not in failed.stdout


def test_a_table_that_is_brought_can_bring_its_validation(workflow, tiny):
    table = read_table(write_table(workflow.folder / "phone.tsv", tiny), tiny, 10)
    rows = [f"{' '.join(ops)}\t{how}\t{table.predict(ops) / 2}" for ops, how in draw(table, 4)]
    (workflow.folder / "measured.tsv").write_text("\n".join(["ops\tdrawn\tmeasured_us", *rows]) + "\n", encoding="utf-8")
    made, phone = "results/latency/phone.validation.tsv", {"table": "phone.tsv"}
    workflow.configure(with_settings(latency={"phone": phone}, search__target="phone"))
    refused = workflow(made)
    assert "can be brought, too, as the key validation of the latency target" in refused.stdout
    assert "Traceback" not in refused.stdout
    workflow.configure(with_settings(latency={"phone": phone | {"validation": "measured.tsv"}}, search__target="phone"))
    done = workflow(made)
    assert done.returncode == 0, done.stdout
    assert read_header(workflow.folder / made)["bias"] == "1.0000"
    whole = workflow("--dry-run", "--config", "validation={strict: true, networks: 5}").stdout
    assert "train_supernet" in whole
    assert "validate_latency" not in whole  # what was measured elsewhere is as it is, and a strict search waits for it


def test_export_appends_to_a_file_kept_by_hand(finished_workflow, script, tmp_path):
    kept = tmp_path / "fbnet_modeldef.py"
    kept.write_text("import torch  # never executed\nMODEL_ARCH = {\n}\n", encoding="utf-8")
    results = finished_workflow.folder / "results"
    arguments = ["--architectures", results / "architectures/first.tsv", "--supernet", results / "search/first/supernet.pt"]
    first = script("export_modeldef", *arguments, "--append-to", kept)
    assert first.returncode == 0, first.stderr
    text = kept.read_text(encoding="utf-8")
    assert '"first_1": {' in text
    again = script("export_modeldef", *arguments, "--append-to", kept)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert kept.read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["fbnet_modeldef.py"]


def test_what_is_no_supernet_is_refused(finished_workflow, script, tmp_path):
    results, path = finished_workflow.folder / "results", tmp_path / "supernet.pt"
    for content in (b"", b"not a checkpoint", (results / "search/first/supernet.pt").read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no supernet that train_supernet wrote"):
            read_supernet(path)
    arguments = ["--supernet", path, "--table", results / "latency/cpu.tsv", "--name", "x", "--out", tmp_path / "x.tsv"]
    done = script("sample_architecture", *arguments)
    assert done.returncode == 1, done.stderr
    assert "is no supernet" in done.stderr
    assert "Traceback" not in done.stderr


def test_formatted_linted_and_clean():
    for command in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["snakefmt", "--check", "Snakefile", "workflow/rules"],
        ["snakemake", "--lint"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("settings", [{}, {"search__epochs": 0}], ids=["right", "wrong"])
def test_a_locale_without_our_characters_stops_nothing(workflow, settings):
    """And neither does it hide what is wrong: config.yaml has characters that ASCII lacks."""
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    (workflow.folder / "config.yaml").write_text(text.replace("epochs: 90", "epochs: 0") if settings else text, encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = workflow("--dry-run", "--quiet", env=os.environ | ascii_only)
    assert ("search.epochs is 0" in done.stdout) == bool(settings), done.stdout
    assert (done.returncode == 0) == (not settings), done.stdout


def test_what_a_folder_of_images_takes_follows_from_how_many_there_are(workflow, tmp_path):
    for half in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / half / name).mkdir(parents=True)
            for number in range(3000 if half == "train" else 1):
                (tmp_path / half / name / f"{number}.jpg").touch()
    workflow.configure(with_settings(dataset={"name": "image_folder", "folder": str(tmp_path)}, threads=2))
    told = workflow("results/data/image_folder/dataset.json", "--dry-run").stdout
    resources = re.search(r"resources: (.*)", told)[1].split(", ")
    assert {"mem_mb=2000", "runtime=12"} <= {*resources}  # 6002 images, two processes
    assert "threads: 2" in told
