"""Tables from elsewhere: read right in every form that people have them in, or refused by the true cause."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, mutated, read_or_refused, write_table
from fbnet.errors import InputError
from fbnet.latency import read_header, read_table
from fbnet.latency.foreign import as_ours, template
from fbnet.latency.table import parse_table
from fbnet.latency.target import UNITS_US

CASES = ROOT.parent / "shared/cases"


def latency(cell):
    return 10.0 * cell.expansion + len(cell.op) + 0.5


@pytest.fixture
def own(tiny, tmp_path):
    """A table of ours, and what is read from it."""
    path = write_table(tmp_path / "own.tsv", tiny, latency_us=latency)
    return path, read_table(path, tiny, 10)


def lines_of(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def changed(path, change):
    """The same rows as another text; `change` makes it of lines of columns."""
    path.write_text(change(lines_of(path)), encoding="utf-8")


def joined(lines, separator="\t"):
    return "\n".join(separator.join(line) for line in lines) + "\n"


def scaled(lines, factor, column="latency_us"):
    at = lines[0].index("latency_us")
    rows = [[*line[:at], f"{float(line[at]) * factor:.9g}", *line[at + 1 :]] for line in lines[1:]]
    return [[*lines[0][:at], column, *lines[0][at + 1 :]], *rows]


def test_a_table_of_ours_stays_as_it_is(own, tiny):
    path, _ = own
    assert as_ours(path, tiny, 10) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_separators_and_ends_of_lines(own, tiny, encoding, separator, end):
    path, table = own
    text = f"# made: by µ{end}" + joined(lines_of(path), separator).replace("\n", end)
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path.write_bytes((mark + text).encode(encoding))
    assert parse_table(as_ours(path, tiny, 10), path, tiny, 10) == table
    assert as_ours(path, tiny, 10).startswith("# made: by µ")


@pytest.mark.parametrize(("unit", "how"), list(product(UNITS_US, ["header", "column", "both"])))
def test_units(own, tiny, unit, how):
    path, table = own
    column = "latency_us" if how == "header" else f"latency_{unit}"
    said = "" if how == "column" else f"# unit: {unit}\n"
    changed(path, lambda lines: said + joined(scaled(lines, 1 / UNITS_US[unit], column)))
    found = parse_table(as_ours(path, tiny, 10), path, tiny, 10)
    assert found.fixed_us == pytest.approx(table.fixed_us, rel=1e-4)
    assert found.operators_us == tuple(pytest.approx(row, rel=1e-4) for row in table.operators_us)


def test_numbers_as_pandas_and_spreadsheets_write_them(own, tiny):
    path, table = own
    changed(
        path,
        lambda lines: joined(
            [[f"{value}.0" if value.isdigit() and at > 1 else value for at, value in enumerate(line)] for line in lines]
        ),
    )
    assert parse_table(as_ours(path, tiny, 10), path, tiny, 10) == table
    write_table(path, tiny, latency_us=latency)
    changed(path, lambda lines: joined([[value.replace(".", ",") for value in line] for line in lines], ";"))
    assert parse_table(as_ours(path, tiny, 10), path, tiny, 10) == table
    write_table(path, tiny, latency_us=latency)
    changed(path, lambda lines: joined([[f'"{value}"' for value in line] for line in lines], ","))
    assert parse_table(as_ours(path, tiny, 10), path, tiny, 10) == table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# unit: fortnights\nlayer\tlatency_us\n", "says `# unit: fortnights`, but must say one of us, µs"),
        ("# unit: s\nlayer\tlatency_ms\n", "has latencies in ms and in s: say one unit"),
        ("layer\tlatency_ms\tlatency_us\n", "has latencies in ms and in us: say one unit"),
        ("ir_k3_e1 skip\n1 2\n1 2\n", "has 2 layers, but space tiny has 3"),
        ("ir_k3_e1 ir_k3_s2 ir_k5_e3 skip\n1 2 3 4\n1 2 3 4\n1 2 3\n", "has 3 latencies in layer 3, but names 4 operators"),
        ("ir_k3_e1 skip\n1 2\n1 2\n1 2\n", "has no operator ir_k3_s2, which layer 1 may choose"),
    ],
)
def test_what_cannot_be_meant_is_named(tiny, tmp_path, text, message):
    (tmp_path / "wrong.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"wrong\.tsv") as error:
        as_ours(tmp_path / "wrong.tsv", tiny, 10)
    assert message in str(error.value)


def test_a_file_that_is_no_utf_8_is_told_so(tiny, tmp_path):
    (tmp_path / "latin.tsv").write_bytes("# Gerät: größer\nlayer\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.tsv cannot be read: 'utf-8' codec .*; save it as UTF-8"):
        as_ours(tmp_path / "latin.tsv", tiny, 10)


def test_a_table_that_tells_of_no_channels_is_none_where_they_are_a_choice(elastic, tmp_path):
    (tmp_path / "lookup_table.txt").write_text("ir_k3_e1 skip\n" + "1 2\n" * 4, encoding="utf-8")
    with pytest.raises(InputError, match="tells of one number of channels, but space elastic lists several"):
        as_ours(tmp_path / "lookup_table.txt", elastic, 10)
    rows = template(elastic, 10).splitlines()
    assert sum(row.startswith("head\tconv_k1") for row in rows) == 2
    assert len(rows) == len(elastic.cells(10)) + 4  # and the header


def test_the_reference_s_table_is_read_for_a_space_and_says_what_is_missing(tiny, tmp_path):
    path = tmp_path / "lookup_table.txt"
    path.write_text(
        "ir_k5_e3 ir_k3_e1 skip ir_k3_s2\n30.5 10.0 0.25 20.0\n31.5 11.0 1.25 21.0\n32.5 12.0 2.25 22.0\n", encoding="utf-8"
    )
    text = as_ours(path, tiny, 10)
    table = parse_table(text, path, tiny, 10)
    assert [cell.op for cell in tiny.layers[0]] == ["ir_k3_e1", "ir_k3_s2", "ir_k5_e3", "skip"]
    assert table.operators_us == tuple((10.0 + n, 20.0 + n, 30.5 + n, 0.25 + n) for n in (0, 1, 2))
    assert table.fixed_us == (0.0, 0.0, 0.0)
    assert "# missing: stem, head, classifier" in text


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_a_table_from_elsewhere_may_be_of_what_cannot_be_measured_here(tiny, script, tmp_path, dtype):
    table = write_table(tmp_path / "phone.tsv", tiny)
    done = script("profile_latency", "--space", "tiny", "--table", table, "--dtype", dtype, "--out", tmp_path / "out.tsv")
    assert done.returncode == 0, done.stderr
    refused = script("profile_latency", "--space", "tiny", "--dtype", dtype, "--out", tmp_path / "no.tsv")
    assert refused.returncode == 1
    assert f"latency: dtype is '{dtype}', but" in refused.stderr


def test_a_template_is_filled_in(script, tiny, tmp_path):
    done = script("profile_latency", "--space", "tiny", "--template", "--out", tmp_path / "mine.tsv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine.tsv").read_text(encoding="utf-8") == template(tiny, 10)
    refused = script("profile_latency", "--space", "tiny", "--table", tmp_path / "mine.tsv", "--out", tmp_path / "no.tsv")
    assert refused.returncode == 1
    assert "layer stem, conv_k3 (3→8 channels, 16×16, stride 2): latency_us is ''" in refused.stderr
    filled = "".join(
        line if line.startswith(("#", "layer")) else line.replace("\n", "0.5\n")
        for line in template(tiny, 10).splitlines(keepends=True)
    ).replace("unit: us", "unit: ms")
    (tmp_path / "mine.tsv").write_text(filled, encoding="utf-8")
    done = script("profile_latency", "--space", "tiny", "--table", tmp_path / "mine.tsv", "--out", tmp_path / "taken.tsv")
    assert done.returncode == 0, done.stderr
    assert read_table(tmp_path / "taken.tsv", tiny, 10).fixed_us == (500.0, 500.0, 500.0)
    assert "unit" not in read_header(tmp_path / "taken.tsv")


def test_a_network_that_takes_next_to_nothing_is_doubted(script, tiny, tmp_path):
    own = write_table(tmp_path / "ms.tsv", tiny, latency_us=lambda cell: 0.1 * cell.expansion)
    done = script("profile_latency", "--space", "tiny", "--table", own, "--out", tmp_path / "taken.tsv")
    assert done.returncode == 0
    assert (
        "No network takes more than 1.2 µs by this table: is it in another unit? Then say so in a line such as # unit: ms"
        in done.stderr
    )


@pytest.mark.skipif(not CASES.exists(), reason="the tables of others are not here")
def test_tables_as_people_have_them(tiny):
    wanted = parse_table(as_ours(CASES / "table_tiny.tsv", tiny, 10), "", tiny, 10)
    for name in ("byte_order_mark", "saved_by_pandas"):
        path = CASES / f"table_{name}.tsv"
        assert parse_table(as_ours(path, tiny, 10), path, tiny, 10) == wanted


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mutated_table_is_read_or_refused_in_a_sentence(tiny, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutated_foreign.tsv"
    write_table(path, tiny)
    text = "# unit: ms\n" + path.read_text(encoding="utf-8").replace("\t", data.draw(st.sampled_from("\t,;")))
    path.write_bytes(data.draw(mutated(text)))
    table = read_or_refused(path, lambda: parse_table(as_ours(path, tiny, 10), path, tiny, 10))
    assert table is None or 0 <= table.least_us <= table.most_us < float("inf")
