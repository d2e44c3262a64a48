"""Validation: which networks a table is compared with, and how well it predicts them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ELASTIC
from fbnet.latency import LatencyTable
from fbnet.latency.validation import COLUMNS, Measured, compared, draw, statistics
from fbnet.report.latency_plots import heat_map, scatter
from fbnet.space import read_space

SMALL = read_space({"base": "tiny", "candidates": ["ir_k3_e1", "skip"]})


def table_of(space, us=lambda cell: 10.0 * cell.c_out * cell.expansion):
    heads = tuple(map(us, space.heads)) if len(space.heads) > 1 else ()
    rows = tuple(tuple(map(us, layer)) for layer in space.layers)
    return LatencyTable(space, tuple(map(us, space.fixed_cells(10))), rows, heads)


def test_networks_are_drawn_uniformly_and_over_the_range_of_latency():
    table = table_of(read_space("fbnet_cifar"))
    drawn = draw(table, 32)
    assert len({ops for ops, _ in drawn}) == 32
    assert [how for _, how in drawn] == ["uniform"] * 16 + ["stratified"] * 16
    assert draw(table, 32) == drawn != draw(table, 32, seed=2)
    latencies = {how: [table.predict(ops) for ops, other in drawn if other == how] for how in ("uniform", "stratified")}
    span = table.most_us - table.least_us
    assert max(latencies["stratified"]) - min(latencies["stratified"]) > 0.8 * span
    assert max(latencies["uniform"]) - min(latencies["uniform"]) < 0.6 * span
    gaps = [b - a for a, b in zip(sorted(latencies["stratified"]), sorted(latencies["stratified"])[1:], strict=False)]
    assert max(gaps) < 0.15 * span


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    us=st.lists(st.floats(0, 1e6), min_size=6, max_size=6),
)
def test_any_table_gives_distinct_networks(count, us):
    values = iter(us)
    table = LatencyTable(SMALL, (1.0, 1.0, 1.0), tuple(tuple(next(values) for _ in layer) for layer in SMALL.layers))
    drawn = [ops for ops, _ in draw(table, count)]
    assert len(set(drawn)) == len(drawn) <= min(count, 8)
    assert len(drawn) >= min(count, 8) // 2
    for ops in drawn:
        SMALL.path(ops)


def test_statistics_by_hand():
    found = statistics([110.0, 180.0, 330.0, 400.0], [100.0, 200.0, 300.0, 250.0])
    assert found == {
        "mean_error": pytest.approx((0.1 + 0.1 + 0.1 + 0.6) / 4),
        "bias": pytest.approx((0.1 - 0.1 + 0.1 + 0.6) / 4),
        "worst_error": pytest.approx(0.6),
        "scale": pytest.approx(1.1),
        "rescaled_error": pytest.approx((0.2 / 1.1 + 0.5 / 1.1) / 4),
        "spearman": pytest.approx(0.8),
        "kendall": pytest.approx(4 / 6),
    }


def test_networks_of_listed_channels_are_drawn(elastic):
    drawn = [ops for ops, _ in draw(table_of(elastic), 60)]
    assert len(set(drawn)) == 60
    channels = [[cell.c_out for cell in elastic.path(ops)] for ops in drawn]
    assert len(set(map(tuple, channels))) == 8


@pytest.mark.parametrize("name", ["tiny", "fbnet_all", ELASTIC], ids=str)
def test_pictures_say_what_they_show(name, tmp_path):
    space = read_space(name)
    heat_map(table_of(space), "Latency of a <made up> device", tmp_path / "heat.svg")
    text = (tmp_path / "heat.svg").read_text(encoding="utf-8")
    for part in ("latency, µs", "operator", "layer", "k3_e1", "made up", "stem 160" if name == "fbnet_all" else "stem 80"):
        assert part in text, part
    rows = [
        dict(zip(COLUMNS, (" ".join(ops), how, 1000.0 + i, 1100.0, 1090.0, 1110.0, 0.0), strict=True))
        for i, (ops, how) in enumerate(draw(table_of(space), 8))
    ]
    scatter(rows, "made up", tmp_path / "scatter.svg")
    text = (tmp_path / "scatter.svg").read_text(encoding="utf-8")
    for part in ("measured latency, ms", "predicted latency, ms", "within 10 %", "uniform random networks (n = 4)"):
        assert part in text, part


def test_a_table_of_nothing_can_be_drawn(tmp_path):
    heat_map(table_of(SMALL, lambda cell: 0.0), "nothing", tmp_path / "heat.svg")
    assert "nothing" in (tmp_path / "heat.svg").read_text(encoding="utf-8")


def test_a_comparison_says_how_measurements_repeat_where_that_is_known():
    table = table_of(read_space("tiny"))
    networks = [Measured(ops, how, 2 * table.predict(ops)) for ops, how in draw(table, 8)]
    rows, lines = compared(table, networks)
    assert [row["error"] for row in rows] == pytest.approx([-0.5] * 8)
    assert [lines[key] for key in ("mean_error", "scale", "rescaled_error", "networks")] == ["0.5000", "0.5000", "0.0000", "8"]
    assert "retest_mean_error" not in lines
    assert lines["result"].endswith("Kendall's τ 1.000. How they repeat is not told.")
    again = [one._replace(first_us=1.1 * one.measured_us, second_us=one.measured_us) for one in networks]
    _, lines = compared(table, again)
    assert lines["retest_mean_error"] == "0.1000"
    assert "Test-retest error: MAPE 10.0% between two measurements" in lines["result"]
