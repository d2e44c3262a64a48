"""Latency tables: read by key, refused when wrong, stale or foreign; the scripts that make and check them."""

import itertools
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, SPACES, mutated, read_or_refused, write_table
from fbnet.errors import InputError
from fbnet.latency import Target, hardly_differ, read_header, read_table
from fbnet.latency.table import COLUMNS, contrast, drawing
from fbnet.latency.target import CHOICES
from fbnet.latency.validation import COLUMNS as COLUMNS_OF_VALIDATION
from fbnet.space import read_space


def test_a_table_is_read_by_key_whatever_the_order_of_rows_and_columns(tiny, tmp_path):
    def latency(cell):
        return len(cell.op) + cell.c_out

    plain = read_table(write_table(tmp_path / "a.tsv", tiny, latency_us=latency), tiny, 10)
    shuffled = write_table(tmp_path / "b.tsv", tiny, latency_us=latency, change=lambda rows: rows[::-1])
    lines = [line.split("\t") for line in shuffled.read_text(encoding="utf-8").splitlines()[1:]]
    shuffled.write_text("# other\n" + "\n".join("\t".join(line[::-1]) for line in lines), encoding="utf-8")
    assert read_table(shuffled, tiny, 10) == plain
    assert plain.operators_us[0] == tuple(latency(cell) for cell in tiny.layers[0])
    assert plain.fixed_us == tuple(latency(cell) for cell in tiny.fixed_cells(10))
    assert plain.predict(["skip"] * 3) == sum(plain.fixed_us) + sum(latency(layer[-1]) for layer in tiny.layers)
    assert plain.least_us <= plain.predict(["skip", "ir_k5_e3", "skip"]) <= plain.most_us


def test_a_table_of_listed_channels_has_a_row_for_each_and_adds_up_the_head_that_fits(elastic, tmp_path):
    def latency(cell):
        return 1.0 + cell.c_in % 7 + 2 * (cell.c_out % 5) + len(cell.op)

    path = write_table(tmp_path / "table.tsv", elastic, latency_us=latency)
    table = read_table(path, elastic, 10)
    sums = {}
    for ops in itertools.product(*(dict.fromkeys(cell.choice for cell in layer) for layer in elastic.layers)):
        with suppress(InputError):
            cells = elastic.network_cells(ops, 10)
            sums[ops] = sum(map(latency, cells))
            assert table.predict(ops) == sums[ops]
            assert table.cells_us(ops) == list(map(latency, cells))
    assert len(sums) == 2048
    assert (table.least_us, table.most_us) == (min(sums.values()), max(sums.values()))
    heads = write_table(path, elastic, latency_us=latency, change=lambda rows: rows[:-3] + rows[-2:])
    with pytest.raises(InputError, match=r"no row for layer head, conv_k1 \(16→32 channels"):
        read_table(heads, elastic, 10)


def test_a_table_of_listed_channels_is_drawn_with_a_line_for_each_pair(elastic, tmp_path):
    table = read_table(write_table(tmp_path / "table.tsv", elastic, latency_us=lambda cell: float(cell.c_in)), elastic, 10)
    lines = drawing(table).splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [["1", "8→8"], ["1", "8→16"], ["2", "8→24"], ["2", "8→16"]]
    assert lines[-1] == "stem 3.0, head 16.0 to 24.0, classifier 32.0; all in µs"


def change_cell(number, value):
    def change(rows):
        rows[number][COLUMNS.index("latency_us")] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:3] + rows[4:], "no row for layer 1, ir_k5_e3 (8→8 channels, 8×8, stride 1)"),
        (lambda rows: [*rows, rows[3]], "layer 1, ir_k5_e3 (8→8 channels, 8×8, stride 1): the entry is there twice"),
        (change_cell(3, -1.0), "layer 1, ir_k5_e3 (8→8 channels, 8×8, stride 1): latency_us is '-1.0'"),
        (change_cell(0, "nan"), "layer stem, conv_k3 (3→8 channels, 16×16, stride 2): latency_us is 'nan'"),
        (change_cell(0, "inf"), "latency_us is 'inf'"),
        (change_cell(0, "fast"), "latency_us is 'fast'"),
        (change_cell(0, ""), "latency_us is ''"),
        (lambda rows: rows[:-1], "no row for layer head, pool_fc"),
        (lambda rows: [], "no row for layer stem"),
    ],
)
def test_a_wrong_entry_is_named(tiny, tmp_path, change, message):
    path = write_table(tmp_path / "wrong.tsv", tiny, change=change)
    with pytest.raises(InputError) as error:
        read_table(path, tiny, 10)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_the_column_expansion_may_be_absent_where_names_say_it(tiny, tmp_path):
    def without_expansion(path):
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        at = lines[0].index("expansion")
        path.write_text("\n".join("\t".join(line[:at] + line[at + 1 :]) for line in lines), encoding="utf-8")
        return path

    whole = read_table(write_table(tmp_path / "a.tsv", tiny), tiny, 10)
    assert read_table(without_expansion(write_table(tmp_path / "b.tsv", tiny)), tiny, 10) == whole
    open_names = read_space(tiny.definition | {"candidates": ["skip", "ir_k3"], "expansion": 4})
    path = write_table(tmp_path / "c.tsv", open_names)
    assert read_table(path, open_names, 10).least_us > 0
    with pytest.raises(InputError, match=r"no row for layer 1, ir_k3 \(8→8 channels, 8×8, stride 1, expansion 3\)"):
        read_table(path, read_space(open_names.definition | {"expansion": 3}), 10)
    with pytest.raises(InputError, match=r"no row for layer 1, ir_k3 .*expansion 4"):
        read_table(without_expansion(path), open_names, 10)


def test_a_table_of_another_norm_is_refused(tiny, tmp_path):
    path = write_table(tmp_path / "a.tsv", tiny)
    path.write_text(f"# norm: gn4\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    assert read_header(path) == {"norm": "gn4", "made up": ""}
    with pytest.raises(InputError, match="norm gn4, but space tiny has norm bn"):
        read_table(path, tiny, 10)
    read_table(path, read_space(tiny.definition | {"norm": "gn4"}), 10)


def test_a_table_made_for_other_settings_is_refused(tiny, tmp_path):
    path = write_table(tmp_path / "a.tsv", tiny)
    settings = Target(threads=2).settings()
    path.write_text(
        "".join(f"# {key}: {value}\n" for key, value in settings.items()) + path.read_text(encoding="utf-8"), encoding="utf-8"
    )
    read_table(path, tiny, 10, settings)
    for key, other in (("batch", "8"), ("dtype", "bfloat16"), ("threads", "1"), ("engine", "onnxruntime")):
        with pytest.raises(InputError, match=rf"a\.tsv was made for {key} {settings[key]}, but its target has {key} {other}"):
            read_table(path, tiny, 10, settings | {key: other})
    with pytest.raises(InputError, match="of space tiny"):  # the resolution is part of every row's key
        read_table(path, read_space(tiny.definition | {"resolution": 32}), 10, settings)


def test_settings_that_do_not_count_are_no_part_of_a_table():
    assert "cost" not in Target().settings()
    assert set(Target(engine="analytic").settings()) == {"engine", "cost"}
    assert "threads" not in Target(device="cuda").settings()
    assert "mode" not in Target(engine="onnxruntime").settings()


WRONG = [
    b"",
    b"# nothing\n",
    b"layer\top\n1\tskip\n",
    b"\xff\xfe\x00",
    b"a\tb\n1\t2\t3\t4\n5\n",
    b"\x00" * 1000,
    b"\t".join(column.encode() for column in COLUMNS) + b"\n" + b"1" * 200_000 + b"\t" * 10 + b"\n",
    b"\t".join(column.encode() for column in COLUMNS) + b"\n__import__('os')" + b"\t1" * 10 + b"\n",
    b"<html><body>404</body></html>",
]


@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_what_is_no_table_is_refused(tiny, tmp_path, content):
    (tmp_path / "no.tsv").write_bytes(content)
    with pytest.raises(InputError, match=r"no\.tsv"):
        read_table(tmp_path / "no.tsv", tiny, 10)


@pytest.fixture(scope="module")
def good(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "table.tsv"
    return path, "# norm: bn\n# threads: 1\n" + write_table(path, tiny).read_text(encoding="utf-8")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mutated_table_is_read_or_refused_in_a_sentence(good, tiny, data):
    """And what is read is nothing that was not in it: latencies of 0 µs or more."""
    path, text = good
    path.write_bytes(data.draw(mutated(text)))
    table = read_or_refused(path, lambda: read_table(path, tiny, 10, {"threads": "1"}))
    assert table is None or 0 <= table.least_us <= table.most_us < float("inf")


def test_a_table_of_another_space_or_class_count_is_refused(tiny, tmp_path):
    path = write_table(tmp_path / "tiny.tsv", tiny)
    with pytest.raises(InputError, match="of space tiny with 37 classes"):
        read_table(path, tiny, 37)
    with pytest.raises(InputError, match="of space fbnet_32"):
        read_table(path, read_space(SPACES / "fbnet_32.yaml"), 10)


HEADER = "layer\top\tc_in\tc_out\theight\twidth\tstride\texpansion\tlatency_us\n"
PLACE = {
    "1": "8\t8\t8\t8\t1",
    "2": "8\t16\t8\t8\t2",
    "3": "16\t16\t4\t4\t1",
    "stem": "3\t8\t16\t16\t2",
    "head": "16\t32\t4\t4\t1",
}


def layers(path, **latencies):
    """A table with these operators and latencies in these layers."""
    rows = [f"{layer}\t{op}\t{PLACE[layer]}\t1\t{us}\n" for layer, row in latencies.items() for op, us in row.items()]
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    return path


def numbered(*rows):
    return {str(number): row for number, row in enumerate(rows, 1)}


def test_the_contrast_of_operators_by_hand(tmp_path):
    one, two = {"ir_k3_e1": 10.0, "ir_k5_e3": 14.0, "ir_k3_e3": 12.0}, {"ir_k3_e1": 10.0, "ir_k5_e3": 30.0}
    path = tmp_path / "table.tsv"
    assert contrast(layers(path, **numbered(one))) == pytest.approx(1.4)
    assert contrast(layers(path, **numbered(one, two))) == pytest.approx((1.4 + 3) / 2)  # the median
    assert contrast(layers(path, **numbered(one, two, one))) == pytest.approx(1.4)
    aside = {
        "stem": {"conv_k3": 1.0, "ir_k3_e1": 1.0, "ir_k5_e1": 9.0},
        "head": {"conv_k1": 1.0, "ir_k3_e1": 1.0, "ir_k5_e1": 9.0},
    }
    skips = one | {"skip": 0.001}
    assert contrast(layers(path, **numbered(skips), **aside)) == pytest.approx(1.4)
    # a layer of another space, as a table for several has it, is a layer for itself
    text = layers(path, **numbered(one)).read_text(encoding="utf-8")
    path.write_text(text + "".join(f"1\tir_k3_e1\t16\t16\t4\t4\t1\t1\t{us}\n" for us in (1000.0,)), encoding="utf-8")
    assert contrast(path) == pytest.approx(1.4)


@pytest.mark.parametrize("row", [{"ir_k3_e1": 10.0}, {"ir_k3_e1": 10.0, "skip": 1.0}, {"ir_k3_e1": 0.0, "ir_k5_e1": 1.0}, {}])
def test_without_a_choice_there_is_no_contrast(tmp_path, row):
    path = layers(tmp_path / "table.tsv", **numbered(row), stem={"conv_k3": 1.0})
    assert contrast(path) is None
    assert hardly_differ(path) is None


def test_a_table_that_is_brought_without_expansions_has_a_contrast(tiny, tmp_path):
    path = write_table(tmp_path / "a.tsv", tiny, latency_us=lambda cell: 10.0 * cell.expansion)
    whole = contrast(path)
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    at = lines[0].index("expansion")
    path.write_text("\n".join("\t".join(line[:at] + line[at + 1 :]) for line in lines), encoding="utf-8")
    assert contrast(path) == whole == 3.0


def test_operators_that_hardly_differ_are_told_with_what_to_change(tmp_path):
    for slowest, told in ((14.9, True), (15.0, False), (40.0, False)):
        text = hardly_differ(layers(tmp_path / "table.tsv", **numbered({"ir_k3_e1": 10.0, "ir_k5_e3": slowest})))
        assert bool(text) == told
    text = hardly_differ(layers(tmp_path / "table.tsv", **numbered({"ir_k3_e1": 10.0, "ir_k5_e3": 12.0})))
    assert text.startswith("the operators of a layer hardly differ: the slowest takes 1.20 × the time of the fastest")
    assert "Measure a larger batch, another runtime (engine: onnxruntime), or a space of larger images." in text


def test_the_script_takes_over_a_table(script, tiny, tmp_path):
    own = write_table(tmp_path / "own.tsv", tiny)
    taken = script("profile_latency", "--space", SPACES / "tiny.yaml", "--table", own, "--out", tmp_path / "taken.tsv")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "taken.tsv").read_bytes() == own.read_bytes()
    assert "The operators of a layer hardly differ: the slowest takes 1.00 × the time" in taken.stderr
    write_table(own, tiny, latency_us=lambda cell: 10.0 * cell.expansion)
    taken = script("profile_latency", "--space", SPACES / "tiny.yaml", "--table", own, "--out", tmp_path / "taken.tsv")
    assert "hardly differ" not in taken.stderr

    own.write_text("nothing", encoding="utf-8")
    refused = script("profile_latency", "--space", SPACES / "tiny.yaml", "--table", own, "--out", tmp_path / "no.tsv")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "no.tsv").exists()


def test_a_table_is_measured_and_its_validation_is_a_table_and_a_picture(script, tiny, tmp_path):
    measured = script("profile_latency", "--space", "tiny", "--runs", 6, "--out", tmp_path / "own.tsv")
    assert measured.returncode == 0, measured.stderr
    header = [line for line in (tmp_path / "own.tsv").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    for key in ("machine", "cores", "governor", "threads: 1", "batch: 1", "versions", "date", "load", "variability"):
        assert any(key in line for line in header), key
    arguments = ["--space", "tiny", "--table", tmp_path / "own.tsv", "--networks", 8, "--runs", 3]
    done = script("validate_latency", *arguments, "--out", tmp_path / "v.tsv", "--plot", tmp_path / "v.svg")
    assert done.returncode == 0, done.stderr
    assert "latency of 8 random networks: mean absolute percentage error (MAPE)" in done.stderr
    header, rows = read_header(tmp_path / "v.tsv"), (tmp_path / "v.tsv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(COLUMNS_OF_VALIDATION, row.split("\t"), strict=True)) for row in rows if not row.startswith("#")][1:]
    assert len(rows) == 8
    table = read_table(tmp_path / "own.tsv", tiny, 10)
    errors = []
    for row in rows:
        assert float(row["predicted_us"]) == pytest.approx(table.predict(row["ops"].split(" ")), rel=1e-4)
        assert float(row["measured_us"]) == pytest.approx((float(row["first_us"]) + float(row["second_us"])) / 2, rel=1e-3)
        errors.append(float(row["predicted_us"]) / float(row["measured_us"]) - 1)
    assert float(header["bias"]) == pytest.approx(sum(errors) / 8, abs=1e-3)
    retest = [float(row["first_us"]) / float(row["second_us"]) - 1 for row in rows]
    assert float(header["retest_mean_error"]) == pytest.approx(sum(map(abs, retest)) / 8, abs=1e-3)
    assert float(header["mean_error"]) == pytest.approx(sum(map(abs, errors)) / 8, abs=1e-3)
    assert "predicted latency, ms" in (tmp_path / "v.svg").read_text(encoding="utf-8")

    for option, message in (
        ("--threads=2", "made for threads 1, but its target has threads 2"),
        ("--engine=analytic", "nothing"),
    ):
        refused = script("validate_latency", *arguments, option, "--out", tmp_path / "no.tsv")
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_device_that_is_measured_from_afar_needs_no_more_than_pytorch(tmp_path):
    absent = [
        "snakemake",
        "pandas",
        "sklearn",
        "scipy",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "jsonschema",
        "psutil",
    ]
    absent += ["torchvision"]  # which would make every script start seconds later
    path = ROOT / "workflow/scripts/profile_latency.py"
    code = f"""
import runpy, sys
sys.path.insert(0, {str(path.parent)!r})
for name in {absent!r}:
    sys.modules[name] = None
sys.argv = ["profile_latency.py", "--space", "tiny", "--runs", "3", "--out", {str(tmp_path / "t.tsv")!r}]
runpy.run_path({str(path)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.tsv").exists()


def test_the_schema_knows_the_same_settings():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))["$defs"]["target"][
        "properties"
    ]
    for key, default in asdict(Target()).items():
        assert schema[key]["default"] == default, key
        assert tuple(schema[key].get("enum", ())) == CHOICES.get(key, ()), key
