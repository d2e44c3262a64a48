"""Latency tables: measured, read by key, refused when wrong."""

import pytest

from conftest import SPACES, write_table
from fbnet.errors import InputError
from fbnet.latency import COLUMNS, read_header, read_table
from fbnet.profiling import measure
from fbnet.space import read_space


def test_identical_cells_are_measured_once_and_every_cell_has_its_row():
    space = read_space(SPACES / "fbnet_32.yaml")
    cells = space.cells(10)
    rounds = []
    rows = measure(cells, "cpu", threads=1, runs=3, rounds=lambda r: rounds.append(r) or r)
    assert len(rows) == len(cells) == 22 * 9 + 3
    assert len(rounds) == 1
    assert (rows.runs == 3).all()
    assert (rows.latency_us > 0).all()
    assert (rows.iqr_us >= 0).all()
    for _, same in rows.groupby(["op", "c_in", "c_out", "height", "width", "stride"]):
        assert same.latency_us.nunique() == 1
    skips = rows[rows.op == "skip"]
    assert skips.latency_us.min() < rows[rows.op == "ir_k5_e6"].latency_us.min()


def test_more_threads_than_cores_are_refused(tiny):
    with pytest.raises(InputError, match="threads is 100000"):
        measure(tiny.cells(10), "cpu", threads=100_000, runs=3)


def test_a_table_is_read_by_key_whatever_the_order_of_rows_and_columns(tiny, tmp_path):
    def latency(cell):
        return len(cell.op) + cell.c_out

    plain = read_table(write_table(tmp_path / "a.tsv", tiny, latency_us=latency), tiny, 10)
    shuffled = write_table(tmp_path / "b.tsv", tiny, latency_us=latency, change=lambda rows: rows[::-1])
    lines = [line.split("\t") for line in shuffled.read_text().splitlines()[1:]]
    shuffled.write_text("# other\n" + "\n".join("\t".join(line[::-1]) for line in lines))
    assert read_table(shuffled, tiny, 10) == plain
    assert plain.operators_us[0] == tuple(latency(cell) for cell in tiny.layers[0])
    assert plain.fixed_us == tuple(latency(cell) for cell in tiny.fixed_cells(10))
    assert plain.predict(["skip"] * 3) == sum(plain.fixed_us) + sum(latency(layer[-1]) for layer in tiny.layers)
    assert plain.least_us <= plain.predict(["skip", "ir_k5_e3", "skip"]) <= plain.most_us


def change_cell(number, value):
    def change(rows):
        rows[number][COLUMNS.index("latency_us")] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:3] + rows[4:], "no row for layer 1, ir_k5_e3 (8→8 channels, 8×8, stride 1)"),
        (lambda rows: [*rows, rows[3]], "layer 1, ir_k5_e3 (8→8 channels, 8×8, stride 1): the cell is there twice"),
        (change_cell(3, -1.0), "layer 1, ir_k5_e3 (8→8 channels, 8×8, stride 1): latency_us is '-1.0'"),
        (change_cell(0, "nan"), "layer stem, conv_k3 (3→8 channels, 16×16, stride 2): latency_us is 'nan'"),
        (change_cell(0, "inf"), "latency_us is 'inf'"),
        (change_cell(0, "fast"), "latency_us is 'fast'"),
        (change_cell(0, ""), "latency_us is ''"),
        (lambda rows: rows[:-1], "no row for layer head, pool_fc"),
        (lambda rows: [], "no row for layer stem"),
    ],
)
def test_a_wrong_cell_is_named(tiny, tmp_path, change, message):
    path = write_table(tmp_path / "wrong.tsv", tiny, change=change)
    with pytest.raises(InputError) as error:
        read_table(path, tiny, 10)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_the_column_expansion_may_be_absent_where_names_say_it(tiny, tmp_path):
    def without_expansion(path):
        lines = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        at = lines[0].index("expansion")
        path.write_text("\n".join("\t".join(line[:at] + line[at + 1 :]) for line in lines))
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
    path.write_text(f"# norm: gn4\n{path.read_text()}")
    assert read_header(path) == {"norm": "gn4", "made up": ""}
    with pytest.raises(InputError, match="norm gn4, but space tiny has bn"):
        read_table(path, tiny, 10)
    read_table(path, read_space(tiny.definition | {"norm": "gn4"}), 10)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"layer\top\n1\tskip\n", b"\xff\xfe\x00", b"a\tb\n1\t2\t3\t4\n5\n"])
def test_what_is_no_table_is_refused(tiny, tmp_path, content):
    (tmp_path / "no.tsv").write_bytes(content)
    with pytest.raises(InputError, match=r"no\.tsv"):
        read_table(tmp_path / "no.tsv", tiny, 10)


def test_a_table_of_another_space_or_class_count_is_refused(tiny, tmp_path):
    path = write_table(tmp_path / "tiny.tsv", tiny)
    with pytest.raises(InputError, match="of space tiny with 37 classes"):
        read_table(path, tiny, 37)
    with pytest.raises(InputError, match="of space fbnet_32"):
        read_table(path, read_space(SPACES / "fbnet_32.yaml"), 10)


def test_the_script_profiles_and_takes_over_a_table(script, tiny, tmp_path):
    own = write_table(tmp_path / "own.tsv", tiny)
    taken = script("profile_latency", "--space", SPACES / "tiny.yaml", "--table", own, "--out", tmp_path / "taken.tsv")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "taken.tsv").read_bytes() == own.read_bytes()

    measured = script("profile_latency", "--space", SPACES / "tiny.yaml", "--runs", 3, "--out", tmp_path / "new.tsv")
    assert measured.returncode == 0, measured.stderr
    header = [line for line in (tmp_path / "new.tsv").read_text().splitlines() if line.startswith("#")]
    for key in ("device", "threads: 1", "versions", "date"):
        assert any(key in line for line in header), key
    read_table(tmp_path / "new.tsv", tiny, 10)

    own.write_text("nothing")
    refused = script("profile_latency", "--space", SPACES / "tiny.yaml", "--table", own, "--out", tmp_path / "no.tsv")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "no.tsv").exists()
