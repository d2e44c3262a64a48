"""Networks that are measured elsewhere: handed out as files, and taken back or refused in a sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import mutated, read_or_refused, write_table
from fbnet.errors import InputError
from fbnet.latency import Target, read_header, read_table
from fbnet.latency.elsewhere import as_files, measured_elsewhere
from fbnet.latency.validation import draw


@pytest.fixture
def filled(tiny, tmp_path):
    """A table, and a validation of it that somebody has filled in with twice what the table says, in ms."""
    table = read_table(write_table(tmp_path / "phone.tsv", tiny), tiny, 10)
    rows = [f"{' '.join(ops)}\t{how}\t{table.predict(ops) / 500}" for ops, how in draw(table, 6)]
    path = tmp_path / "phone.validation.tsv"
    path.write_text("\n".join(["# machine: phone", "ops\tdrawn\tmeasured_ms", *rows]) + "\n", encoding="utf-8")
    return table, path


def test_what_was_measured_elsewhere_is_read_in_its_unit(filled):
    table, path = filled
    networks, about = measured_elsewhere(path, table, {"machine": "phone"})
    assert about == {"machine": "phone"}
    assert [one.ops for one in networks] == [ops for ops, _ in draw(table, 6)]
    assert [one.measured_us for one in networks] == pytest.approx([2 * table.predict(one.ops) for one in networks], rel=1e-5)
    assert {one.first_us for one in networks} == {None}
    text = path.read_text(encoding="utf-8").replace("measured_ms\n", "measured_ms\tfirst_us\tsecond_us\n")
    lines = [f"{line}\t\t7" if "uniform" in line or "stratified" in line else line for line in text.splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    networks, _ = measured_elsewhere(path, table, {})
    assert {(one.first_us, one.second_us) for one in networks} == {(None, 7.0 * 1000)}  # in the unit of all


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "# machine: phone",
            "# machine: watch",
            "was measured with machine watch, but its table with phone: bring two",
        ),
        ("measured_ms", "took", "lacks the column measured_us: fill in what"),
        ("\tuniform\t", "\tuniform\t-", "row 1: measured_us is '-"),
        ("\tuniform\t", "\tuniform\tsoon\t", "row 1 has not the 3 columns of the first line"),
        ("skip", "hop", ", row 1: the architecture"),
    ],
)
def test_a_validation_that_cannot_be_meant_is_refused(filled, old, new, message):
    table, path = filled
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"the validation .*phone\.validation\.tsv") as error:
        measured_elsewhere(path, table, {"machine": "phone"})
    assert message in str(error.value)


def test_a_validation_of_too_few_or_without_a_time_is_refused(filled):
    table, path = filled
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:5]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="has 3 networks, but at least 4 are needed"):
        measured_elsewhere(path, table, {})
    path.write_text("\n".join([*lines[:2], lines[2].rpartition("\t")[0] + "\t"]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="row 1: measured_us is empty"):
        measured_elsewhere(path, table, {})


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_mutated_validation_is_read_or_refused_in_a_sentence(tiny, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    table = read_table(write_table(folder / "of_mutated.tsv", tiny), tiny, 10)
    rows = "\n".join(f"{' '.join(ops)}\t{how}\t{table.predict(ops)}" for ops, how in draw(table, 5))
    path = folder / "mutated_validation.tsv"
    path.write_bytes(data.draw(mutated(f"ops\tdrawn\tmeasured_us\n{rows}\n")))
    found = read_or_refused(path, lambda: measured_elsewhere(path, table, {}))
    assert found is None or all(0 < one.measured_us < float("inf") for one in found[0])


def test_networks_to_measure_elsewhere_are_files_that_others_run(tiny, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    table = read_table(write_table(tmp_path / "phone.tsv", tiny), tiny, 10)
    text = as_files(table, 10, Target(batch=2), 4, tmp_path / "networks")
    *_, columns, first, _, _, _ = text.splitlines()
    assert columns.split("\t") == ["file", "ops", "drawn", "measured_us"]
    assert [path.name for path in sorted((tmp_path / "networks").iterdir())] == ["1.onnx", "2.onnx", "3.onnx", "4.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "networks" / first.split("\t")[0])
    [images] = session.get_inputs()
    assert images.shape == [2, 3, 16, 16]


def test_the_script_takes_over_what_was_measured_elsewhere(script, filled, tmp_path):
    _, path = filled
    out = tmp_path / "out.tsv"
    table = ["--space", "tiny", "--table", tmp_path / "phone.tsv"]
    done = script("validate_latency", *table, "--measured", path, "--out", out, "--plot", tmp_path / "out.svg")
    assert done.returncode == 0, done.stderr
    header = read_header(out)
    assert (header["machine"], header["networks"], header["bias"]) == ("phone", "6", "-0.5000")
    assert (tmp_path / "out.svg").exists()
