"""What a run ends with: derived architectures, latency tables, findings, warnings, the next command."""

import json

import pytest

from conftest import write_table
from fbnet.errors import InputError
from fbnet.evaluation import print_summary
from fbnet.evaluation.diagnosis import diagnosis
from fbnet.space import read_space
from recipes import OPS, SETTINGS

VALIDATION = "# machine: a CPU\n# mean_error: {error}\n# networks: 16\nops\n"
SEARCH = {"target": "cpu", "latency_budget": None, "budgets": {}}


@pytest.fixture
def results(tmp_path, tiny):
    """A folder as one search and its validated table leave it, as far as the summary reads it."""
    (tmp_path / "latency").mkdir()
    write_table(tmp_path / "latency/cpu.tsv", tiny, latency_us=lambda cell: 10.0 * cell.c_out * cell.expansion)
    (tmp_path / "latency/cpu.validation.tsv").write_text(VALIDATION.format(error=0.051), encoding="utf-8")
    add_search(tmp_path, "first", tiny)
    return tmp_path


def add_search(results, name, space, ops=OPS, raced=None, **settings):
    (results / "modeldef").mkdir(exist_ok=True)
    provenance = {"space": space.definition, "settings": SETTINGS | settings, "ops": OPS.split(), "top1": 0.582}
    entry = {"ops": ops, "latency_us": 3420.4, "macs": 2_100_000, "params": 570_000} | (raced or {})
    document = {"architectures": {name: entry}, "provenance": provenance | {"classes": list("0123456789")}}
    (results / f"modeldef/{name}.json").write_text(json.dumps(document), encoding="utf-8")


def add_measurement(results, ops=OPS, header=""):
    (results / "measurement").mkdir(exist_ok=True)
    rows = f"name\tops\tpredicted_us\tmeasured_us\tlatency_us\nfirst\t{ops}\t3420.4\t3512.0\t3390.0\n"
    (results / "measurement/first.tsv").write_text(header + rows, encoding="utf-8")


def printed(capsys, results, searches=None, error=0.1, latency=None):
    searches = searches or {"first": SEARCH}
    config = {
        "results": str(results),
        "searches": searches,
        "latency": latency or {"cpu": {}},
        "supernets": {search: search for search in searches},
        "validation": {"error": error},
        "evaluation": {"trainings": 3},
        "train": {"epochs": 200},
    }
    print_summary(config, lambda target: f"snakemake {target} --cores 8")
    return capsys.readouterr().out.replace(str(results), "RESULTS")


def test_a_run_without_warnings(capsys, results):
    expected = """
Search first: its derived architecture
  k3_e1 | k5_e3 skip
  latency on cpu: 3420 µs predicted, not measured
  size: 2.1 M MACs, 0.57 M parameters
  one-shot accuracy: 58.2% on the architecture split, with inherited weights
  model: RESULTS/models/first.onnx; its card: RESULTS/models/first.md; its MODEL_ARCH: RESULTS/modeldef/first.py
  Its weights are the supernet's, not trained. This trains it (3 runs of 200 epochs) and exports RESULTS/trained/first.onnx:
    snakemake RESULTS/trained/first.onnx --cores 8

Latency table cpu: predicted within 5.1% in the mean over 16 random networks, allowed 10%: ok
  a CPU

No warnings

Next: train (3 runs of 200 epochs each), measure and compare what was derived with what costs nothing: RESULTS/report.html
    snakemake make_report --cores 8
"""
    assert printed(capsys, results) == expected


def test_warnings_are_counted_and_alike_ones_are_one_entry(capsys, results, tiny):
    add_search(results, "second", tiny)
    add_measurement(results, header="# disturbed: a build ran\n")
    table = results / "latency/cpu.tsv"
    table.write_text("# disturbed: others used 50% of the cores\n" + table.read_text(encoding="utf-8"), encoding="utf-8")
    (results / "evaluation").mkdir()
    (results / "evaluation/findings.tsv").write_text(
        "about\tkind\ttext\nall\tcomparison\tWithin 8 ms all is well.\n"
        "first\twarning\tTheta has hardly decided (its entropy is 93%).\n"
        "second\twarning\tTheta has hardly decided (its entropy is 91.5%).\n",
        encoding="utf-8",
    )
    found = printed(capsys, results, {"first": SEARCH, "second": SEARCH}, error=0.05)
    verdict = "predicted within 5.1% in the mean over 16 random networks, allowed 5%"
    assert f"Latency table cpu: {verdict}: too much" in found
    evaluation, warnings = found.partition("\nEvaluation: ")[2].split("\n\n5 warnings\n")
    assert evaluation.splitlines()[1:] == ["  Within 8 ms all is well."]
    listed, following, _ = warnings.split("\n\n")
    assert "  measurement of first: the machine was disturbed: a build ran\n" in listed
    assert "  latency table cpu: the machine was disturbed during its measurement: others used 50% of" in listed
    assert "  first, second (numbers of the first): Theta has hardly decided (its entropy is 93%)." in listed
    assert f"latency table cpu: {verdict}: do not trust" in " ".join(listed.split())
    assert following.startswith("Once it is quiet here, this measures the latency table cpu again:\n")
    assert "\n    snakemake RESULTS/latency/cpu.tsv --cores 8 --force\n" in found
    assert "\nNext: open RESULTS/report.html" in found


@pytest.mark.parametrize(("settings", "loss", "told"), [
    ({"latency_budget": "2.5ms"}, {}, "latency budget: 2500 µs (2.5ms)"),
    ({}, {"loss": {"form": "target", "target_us": 1900.0, "weight": 1.0}}, "latency budget: 1900 µs (loss.target_us)"),
])  # fmt: skip
def test_a_budget_is_told(capsys, results, tiny, settings, loss, told):
    add_search(results, "first", tiny, **loss)
    assert f"\n  {told}\n" in printed(capsys, results, {"first": SEARCH | settings})


def test_a_measurement_is_told_if_it_is_of_this_architecture(capsys, results):
    add_measurement(results)
    assert "3420 µs predicted, 3512 µs measured (3390 µs rescaled to its table)" in printed(capsys, results)
    add_measurement(results, ops="skip skip skip")
    assert "3420 µs predicted, not measured" in printed(capsys, results)


def test_an_accuracy_is_told_of_the_architecture_that_has_it(capsys, results, tiny):
    other = "ir_k3_e1 ir_k5_e3 ir_k5_e3"
    add_search(results, "first", tiny, ops=other)
    found = printed(capsys, results)
    assert "one-shot accuracy: " not in found
    assert "accuracy: not known yet; this tells the one-shot accuracy, and what else might have been chosen" in found
    assert "\n    snakemake RESULTS/choice/first.tsv --cores 8\n" in found
    (results / "choice").mkdir()
    (results / "choice/first.tsv").write_text(f"what\tops\tsupernet_top1\nchosen\t{other}\t0.401\n", encoding="utf-8")
    assert "one-shot accuracy: 40.1% on the architecture split" in printed(capsys, results)


def test_every_budget_is_told_with_what_is_used_of_it(capsys, results, tiny):
    write_table(results / "latency/gpu.tsv", tiny, latency_us=lambda cell: 1.0)
    budgets = {"gpu": "20us", "params": "1M", "memory": "12kB"}
    found = printed(capsys, results, {"first": SEARCH | {"budgets": budgets}})
    for line in ("latency budget on gpu: 20 µs (20us), 6 µs predicted", "params budget: 1M, 570 k used", "memory budget: 12kB"):
        assert f"\n  {line}\n" in found


def test_a_table_that_no_search_uses_is_judged_too_and_one_that_is_brought_otherwise(capsys, results, tiny):
    write_table(results / "latency/phone.tsv", tiny, latency_us=lambda cell: 0.1 * cell.expansion)
    (results / "latency/phone.validation.tsv").write_text(VALIDATION.format(error=0.4), encoding="utf-8")
    found = printed(capsys, results, latency={"cpu": {}, "not_there": {}, "phone": {"table": "phone.tsv"}})
    assert "Latency table phone: predicted within 40.0% in the mean over 16 random networks, allowed 10%: too much" in found
    told = " ".join(found.split())
    assert "latency table phone: no network takes more than 1.2 µs by this table: is it in another unit?" in told
    assert "do not trust its latencies; operators timed alone do not add up to networks" in told
    assert "again" not in found.partition("warnings")[2]  # it cannot be measured here


def test_a_trained_model_is_the_one_to_take(capsys, results):
    (results / "trained").mkdir()
    (results / "trained/first.onnx").touch()
    found = printed(capsys, results)
    assert "model: RESULTS/trained/first.onnx; its card: RESULTS/trained/first.md" in found
    assert "not trained" not in found
    assert "trained by itself" not in found
    for seed, validation, test in ((0, 0.91, 0.90), (1, 0.93, 0.92), (2, 0.92, 0.95)):
        folder = results / f"training/first/seed_{seed}"
        folder.mkdir(parents=True)
        rows = f"epoch\tphase\ttop1\n0\tvalidation\t0.99\n14\tvalidation\t{validation}\n14\ttest\t{test}\n"
        (folder / "history.tsv").write_text(rows, encoding="utf-8")
    told = "trained by itself: test accuracy 92.0% after 15 epochs; of 3 runs the one that validates best"
    assert told in printed(capsys, results)


def test_many_searches_are_a_table(capsys, results, tiny):
    names = ["first", "second", "third", "with_a_longer_name"]
    for name in names:
        add_search(results, name, tiny)
    lines = printed(capsys, results, dict.fromkeys([*names, "not_yet_run"], SEARCH)).splitlines()
    assert lines[1] == "Derived architectures of 4 searches"
    assert [line.split()[0] for line in lines[3:7]] == names
    assert len(set(map(len, lines[2:7]))) == 1  # columns stand below each other
    assert lines[6].endswith("  cpu    3420 µs         -       -  2.1 M      0.57 M              58.2%")
    assert "    snakemake all_trained --cores 8" in lines
    assert any(line.startswith("  Their weights are the supernets', not trained. To train all (3 runs") for line in lines)
    for name in names:
        add_search(results, name, tiny, raced={"epochs": 4, "test_top1": 0.991})
    lines = printed(capsys, results, dict.fromkeys(names, SEARCH)).splitlines()
    assert (lines[2].endswith("  test accuracy"), lines[6].endswith("  99.1%")) == (True, True)
    assert any(line.startswith("  Their weights are those of the races. To train all from scratch (3 runs") for line in lines)


def add_theta(results, *shares):
    (results / "search/first").mkdir(parents=True)
    rows = [(epoch, layer, share) for epoch in (0, 1) for layer in (1, 2, 3) for share in ([0.25] * 4 if epoch == 0 else shares)]
    text = "".join(f"{epoch}\t{layer}\t{share}\n" for epoch, layer, share in rows)
    (results / "search/first/theta.tsv").write_text(f"epoch\tlayer\tprobability\n{text}", encoding="utf-8")


def test_what_is_wrong_with_a_search_is_told_without_an_evaluation(capsys, results, tiny):
    add_theta(results, 0.97, 0.01, 0.01, 0.01)  # as it was after the last epoch
    assert "\nNo warnings\n" in printed(capsys, results)
    add_search(results, "first", tiny, ops="skip ir_k5_e3 skip")
    found = printed(capsys, results)
    assert "\n1 warning\n  first: 2 of the 2 layers that can be left out are: latency counts too much." in found


def test_what_the_findings_say_too_is_told_once(capsys, results):
    add_theta(results, 0.26, 0.24, 0.25, 0.25)
    alone = printed(capsys, results)
    assert "\n1 warning\n  first: The search has hardly decided" in alone
    [text] = diagnosis(read_space("tiny"), OPS.split(), [[0.26, 0.24, 0.25, 0.25]] * 3, 0.58, 10)
    (results / "evaluation").mkdir()
    (results / "evaluation/findings.tsv").write_text(
        f"about\tkind\ttext\nfirst\twarning\t{text.replace('100%', '99%')}\n", encoding="utf-8"
    )
    both = printed(capsys, results)
    assert "\n1 warning\n  first: The search has hardly decided" in both
    assert both.count("hardly decided") == 1
    assert "numbers of the first" not in both


def test_a_table_whose_operators_hardly_differ_is_warned_of(capsys, results, tiny):
    write_table(results / "latency/cpu.tsv", tiny, latency_us=lambda cell: 10.0 + cell.expansion)
    found = printed(capsys, results)
    assert "\n1 warning\n  latency table cpu: the operators of a layer hardly differ: the slowest takes 1.18 × the time" in found


def test_a_damaged_file_is_named(capsys, results):
    for name in ("latency/cpu.validation.tsv", "measurement/first.tsv", "modeldef/first.json"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text("{}\n{}\n", encoding="utf-8")
        with pytest.raises(InputError, match=f"{name} is not as it was made"):
            printed(capsys, results)


def test_a_table_that_is_damaged_is_named(capsys, results):
    table = results / "latency/cpu.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("80.0", "8O.0"), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"latency/cpu\.tsv, layer stem, conv_k3 .*: latency_us is '8O\.0', but must be a number"
    ):
        printed(capsys, results)


def test_before_any_search_there_is_nothing_to_tell(capsys, tmp_path):
    assert printed(capsys, tmp_path).split("\n") == ["", "", "No warnings", ""]
