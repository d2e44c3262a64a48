"""Measuring: the drift taken out, the design that covers every cell, engines, and tables that foretell simulated devices."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import ELASTIC
from fbnet.errors import InputError
from fbnet.latency import Target, profiling
from fbnet.latency.drift import half_width, steady
from fbnet.latency.machine import Watch, take_device_of
from fbnet.latency.onnx_engine import OnnxEngine
from fbnet.latency.profiling import (
    Samples,
    analytic,
    design,
    fit,
    inside_networks,
    light,
    make_engine,
    measure,
    measure_networks,
    measured,
)
from fbnet.latency.torch_engine import TorchEngine
from fbnet.latency.validation import statistics
from fbnet.space import read_space

WIDE = {  # more channels, in another order, and layers of different operators
    "name": "wide",
    "base": "tiny",
    "stages": [
        {"layers": 1, "channels": [8, 16, 24], "stride": 1, "candidates": ["skip"]},
        {"layers": 3, "channels": [40, 32, 24], "stride": 2, "candidates": [["ir_k3_e1", "ir_k5_e1"], ["skip"], ["ir_k3_e6"]]},
        {"layers": 2, "channels": 16, "stride": 1},
        {"layers": 1, "channels": [16, 32], "stride": 1},
    ],
}


@pytest.fixture(scope="module")
def cifar():
    return read_space("fbnet_cifar")


def test_steady_takes_the_drift_out():
    rng = np.random.default_rng(0)
    levels = {"a": 100.0, "b": 50.0, "c": 10.0, "d": 200.0}
    passes = []
    for number in range(300):
        speed = 1 + 0.3 * np.sin(number / 30)
        keys = rng.choice(list(levels), 3, replace=False)
        spikes = np.where(rng.random(3) < 0.05, 3.0, 1.0)
        passes.append([(key, levels[key] * speed * spike * rng.normal(1, 0.01)) for key, spike in zip(keys, spikes, strict=True)])
    samples, drift = steady(passes)
    found = {key: np.median(values) for key, values in samples.items()}
    for key, level in levels.items():
        assert found[key] / found["a"] == pytest.approx(level / 100, rel=0.01)
    assert np.median(drift) == pytest.approx(1)
    assert drift.max() / drift.min() == pytest.approx(1.3 / 0.7, rel=0.05)
    raw = np.array([us for one in passes for key, us in one if key == "a"])
    assert np.std(samples["a"]) < np.std(raw)


def test_half_width_of_the_median():
    assert half_width(1.35, 100) == pytest.approx(1.25 * 1.96 / 10)


@pytest.mark.parametrize("name", ["tiny", "fbnet_cifar", "fbnet_all", ELASTIC, WIDE], ids=str)
def test_a_design_holds_every_candidate_of_every_layer(name):
    space = read_space(name)
    networks = design(space, random.Random(0))
    assert len(networks) == max(map(len, space.layers))
    paths = [space.path(ops) for ops in networks]
    assert {cell for path in paths for cell in path} == {cell for layer in space.layers for cell in layer}
    for ops in light(space, random.Random(0)) if space.elastic else ():
        space.path(ops)  # which refuses what does not agree


def test_fit_finds_factors_and_overhead_in_spite_of_outliers():
    rng = np.random.default_rng(0)
    levels = {number: rng.uniform(10, 200) for number in range(30)}
    samples = {key: np.array([level]) for key, level in levels.items()}
    drift = rng.uniform(0.9, 1.1, 60)
    for ends, overhead in ((0.8, 7.0), (0.1, 0.0), (0.5, 0.0)):
        networks = []
        for index in range(60):
            keys = rng.choice(range(3, 30), rng.integers(1, 20), replace=False)
            path = [SimpleNamespace(build_key=key, layer="stem" if key < 3 else "1") for key in (0, 1, 2, *keys)]
            us = sum((ends if key < 3 else 0.8) * levels[key] + overhead for key in (0, 1, 2, *keys))
            networks.append((index, path, us * drift[index] * (2 if index % 20 == 0 else 1)))
        found = fit(samples, drift, networks, with_overhead=bool(overhead))
        expected = max(ends, 0.4)  # what no cache does is noise
        assert (found.ends, found.layers) == (pytest.approx(expected, rel=0.05), pytest.approx(0.8, rel=0.02))
        assert found.overhead == pytest.approx(overhead, abs=1.0)
    assert found.latency_us(path[0], 100.0) == pytest.approx(50.0, rel=0.05)
    assert found._replace(overhead=-60.0).latency_us(path[0], 100.0) == 0


class Simulated:
    """A device where a cell alone takes 0.7 of its time in a network, but for the 5 µs that each costs there; speed drifts."""

    def __init__(self, cells, noise: float = 0.01):
        rng = np.random.default_rng(1)
        self.true_us = {cell.build_key: 0.0 if cell.is_identity else rng.uniform(20, 300) + 5 for cell in cells}
        self.noise, self.rng, self.calls = noise, rng, 0

    def network(self, path):
        return SimpleNamespace(time=lambda: sum(self.laps(path)), laps=lambda: self.laps(path))

    def laps(self, path):
        self.calls += 1
        speed = 1 + 0.1 * np.sin(self.calls / 500)
        costs = [self.true_us[cell.build_key] for cell in path if not cell.is_identity]
        times = [0.7 * (us - 5) for us in costs] if len(path) == 1 else costs
        return [us * speed * self.rng.normal(1, self.noise) for us in times]

    def truth(self, path):
        return sum(self.true_us[cell.build_key] for cell in path)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "alone"])
def test_a_table_foretells_the_networks_of_a_simulated_device(cifar, monkeypatch, inside):
    device = Simulated(cifar.cells(10))
    monkeypatch.setattr(profiling, "make_engine", lambda cells, target: device)
    monkeypatch.setattr(profiling, "WARM_UP_S", 0.0)
    target = Target() if inside else Target(engine="onnxruntime")  # which cannot time inside a network
    rows = measure(cifar, 10, target, precision=0.02, runs=40).rows
    table = {(row["layer"], row["op"]): row["latency_us"] for row in rows}
    rng = random.Random(5)
    paths = [cifar.network_cells([rng.choice(layer).op for layer in cifar.layers], 10) for _ in range(40)]
    found = statistics(
        [sum(table[cell.layer, cell.op] for cell in path) for path in paths], [device.truth(path) for path in paths]
    )
    assert found["rescaled_error"] < 0.02, found  # the scale factor is that of the drift's median
    assert found["spearman"] > 0.97, found
    assert abs(found["scale"] - 1) < 0.1, found


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_a_table_of_listed_channels_foretells_them_too(elastic, monkeypatch, engine):
    device = Simulated(elastic.cells(10))
    monkeypatch.setattr(profiling, "make_engine", lambda cells, target: device)
    monkeypatch.setattr(profiling, "WARM_UP_S", 0.0)
    rows = measure(elastic, 10, Target(engine=engine), precision=0.02, runs=40).rows
    keys = [(row["layer"], row["op"], row["c_in"], row["c_out"]) for row in rows]
    assert keys == [(cell.layer, cell.op, cell.c_in, cell.c_out) for cell in elastic.cells(10)]
    assert len(measured(elastic, 10)) == sum(
        row["runs"] > 0 for row in {cell.build_key: row for cell, row in zip(elastic.cells(10), rows, strict=True)}.values()
    )
    table = {cell: row["latency_us"] for cell, row in zip(elastic.cells(10), rows, strict=True)}
    rng = random.Random(5)
    paths = [elastic.network_cells(ops, 10) for _ in range(5) for ops in design(elastic, rng)]
    found = statistics([sum(map(table.get, path)) for path in paths], [device.truth(path) for path in paths])
    assert found["rescaled_error"] < 0.02, found  # the speed drifts too slowly for so few calls to know its mean


def device_with_slow_marks(cells, mark_us):
    """An engine on a simulated device where a mark takes its time, as on an idle GPU; what its cells take; the marks made."""
    rng, now, marks = np.random.default_rng(1), [0.0], []
    true_us = {cell.build_key: 0.0 if cell.is_identity else rng.uniform(10, 60) for cell in cells}

    class Mark:
        def __init__(self):
            self.at = None
            marks.append(self)

        def record(self):
            now[0] += mark_us
            self.at = now[0]

        def synchronize(self):
            pass

        def elapsed_time(self, later):
            return (later.at - self.at) / 1000

    def taking(us):
        def run(x):
            now[0] += us
            return x

        return run

    engine = TorchEngine([], Target(), Mark)
    engine.modules = {cell: taking(true_us[cell.build_key]) for cell in cells if not cell.is_identity}
    return engine, true_us, marks


def test_slow_marks_blur_the_cells_a_little_and_identities_not_at_all(cifar, monkeypatch):
    mark_us, cells = 5.0, cifar.cells(10)
    engine, true_us, _ = device_with_slow_marks(cells, mark_us)
    monkeypatch.setattr(profiling, "make_engine", lambda cells, target: engine)
    monkeypatch.setattr(profiling, "WARM_UP_S", 0.0)
    rounds = []
    rows = measure(cifar, 10, Target(), 0.02, 40, lambda numbers: (rounds.append(number) or number for number in numbers)).rows
    assert len(rounds) < 40  # identities, of which there is never a sample, keep nothing going
    for row, cell in zip(rows, cells, strict=True):
        if cell.is_identity:
            assert (row["latency_us"], row["iqr_us"], row["runs"]) == (0.0, 0.0, 0)
        else:
            assert row["runs"] >= profiling.LEAST_RUNS
            assert row["latency_us"] == pytest.approx(true_us[cell.build_key], abs=1.2 * mark_us)
    table = {(row["layer"], row["op"]): row["latency_us"] for row in rows}
    rng = random.Random(5)
    paths = [cifar.network_cells([rng.choice(layer).op for layer in cifar.layers], 10) for _ in range(40)]
    found = statistics(
        [sum(table[cell.layer, cell.op] for cell in path) for path in paths],
        [sum(true_us[cell.build_key] for cell in path) for path in paths],
    )
    assert found["mean_error"] < 0.02, found
    assert found["spearman"] > 0.99, found


def test_no_mark_is_made_while_a_network_runs(tiny):
    engine, _, marks = device_with_slow_marks(tiny.cells(10), 5.0)
    network = engine.network(tiny.network_cells(["skip", "ir_k3_e1", "skip"], 10))  # two of its cells are identities
    assert len(marks) == 5
    assert all(mark.at for mark in marks)  # a GPU's event is made when it is first recorded
    assert [len(network.laps()) for _ in range(2)] == [4, 4]
    assert network.time() > 0
    assert len(marks) == 5


def test_a_cell_is_done_when_it_is_known_well_or_at_the_cap(cifar, monkeypatch):
    monkeypatch.setattr(profiling, "WARM_UP_S", 0.0)
    runs = {}
    for noise in (0.001, 0.5):
        monkeypatch.setattr(profiling, "make_engine", lambda cells, target, noise=noise: Simulated(cells, noise))
        runs[noise] = [
            row["runs"] for row in measure(cifar, 10, Target(), 0.02, 30).rows if row["layer"] == "1" and row["op"] != "skip"
        ]
    assert max(runs[0.001]) < 30 <= min(runs[0.5])
    assert min(runs[0.001]) >= profiling.LEAST_RUNS


def test_identical_cells_share_their_samples(cifar, monkeypatch):
    monkeypatch.setattr(profiling, "WARM_UP_S", 0.0)
    rows = measure(cifar, 10, Target(), precision=0.5, runs=3).rows
    assert [(row["layer"], row["op"]) for row in rows] == [(cell.layer, cell.op) for cell in cifar.cells(10)]
    by_key = {}
    for row, cell in zip(rows, cifar.cells(10), strict=True):
        assert (row["latency_us"] == row["runs"] == 0) if cell.is_identity else row["latency_us"] > 0
        assert row["iqr_us"] >= 0
        assert by_key.setdefault(cell.build_key, row["latency_us"]) == row["latency_us"]
    heavy = next(row["latency_us"] for row in rows if (row["layer"], row["op"]) == ("3", "ir_k5_e6"))
    light = next(row["latency_us"] for row in rows if (row["layer"], row["op"]) == ("3", "skip"))
    assert light < heavy


@pytest.mark.parametrize(
    "target",
    [
        Target(),
        Target(dtype="bfloat16", memory_format="channels_last", batch=3),
        Target(mode="compile"),
        Target(engine="onnxruntime"),
        Target(engine="onnxruntime", batch=4),
        Target(engine="onnxruntime", dtype="int8"),
    ],
    ids=lambda target: " ".join(target.settings().values()),
)
def test_every_engine_gives_a_table_and_whole_networks(target, monkeypatch):
    monkeypatch.setattr(profiling, "WARM_UP_S", 0.0)
    other_op = "skip" if target.mode == "compile" else "ir_k5_s2"  # each cell is compiled, which takes seconds
    space = read_space({"base": "tiny", "candidates": list(dict.fromkeys(["ir_k3_e1", other_op, "skip"]))})
    found = measure(space, 10, target, precision=0.2, runs=4)
    free = {(row["layer"], row["op"]) for row in found.rows if row["latency_us"] == 0}
    assert free == {("1", "skip"), ("3", "skip")}
    other = [("skip",) * 3] if target.is_eager_on_cpu else []
    measured = measure_networks(space, 10, target, [("skip", "ir_k3_e1", "skip"), (other_op,) * 3], runs=3, times=2, other=other)
    assert measured.us.shape == (2, 2 + len(other))
    assert (measured.us > 0).all()


def test_onnx_cells_in_a_row_compute_what_they_compute_one_after_the_other():
    space = read_space(
        {"base": "tiny", "candidates": ["ir_k3_e1", "ir_k5_s2", "ir_k3_e3_se", "shift_5x5", "skip"], "expansion": 2}
    )
    engine = OnnxEngine(space.cells(10), Target(engine="onnxruntime", batch=2))
    for ops in (("ir_k3_e1", "ir_k5_s2", "skip"), ("skip", "skip", "ir_k3_e3_se"), ("shift_5x5",) * 3):
        path = space.network_cells(ops, 10)
        whole = engine.network(path)
        [expected] = whole.session.run(None, whole.images)
        x = whole.images["images"]
        for cell in path:
            if not cell.is_identity:
                [x] = engine.network([cell]).session.run(None, {"images": x})
        assert x.shape == (2, 10)
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)


def test_inside_a_network_every_wanted_cell_is_timed_each_round(tiny):
    engine = make_engine(tiny.cells(10), Target())
    samples = Samples()
    inside_networks(engine, tiny, 10)({cell.build_key for cell in tiny.cells(10)}, samples)
    computing = {cell.build_key for cell in tiny.cells(10) if not cell.is_identity}
    assert {key for one in samples.passes for key, _ in one} == computing
    assert all(us > 0 for _, _, us in samples.networks)


def test_an_analytic_table_counts(tiny):
    [stem, *_, classifier] = analytic(tiny, 10, "macs").rows
    assert stem["latency_us"] == 3 * 8 * 9 * 8 * 8 / 1000
    assert classifier["latency_us"] == 32 * 10 / 1000
    assert analytic(tiny, 10, "params").rows[-1]["latency_us"] == (32 * 10 + 10) / 1000


def test_a_machine_of_uneven_speed_is_called_disturbed(caplog):
    assert "timing variability was 50%" in Watch().report(0.5)["disturbed"]
    assert "Measure again when it is quiet" in caplog.text


def test_what_is_counted_is_not_compared_with_measurements(tiny, tmp_path):
    with pytest.raises(InputError, match="analytic: such a table counts instead of measuring"):
        take_device_of(tmp_path / "no.tsv", tiny, 10, Target(engine="analytic"))


def test_what_this_machine_cannot_do_is_refused(tiny, monkeypatch):
    with pytest.raises(InputError, match=r"threads is 100000, but at most \d+ CPUs may be used here"):
        make_engine(tiny.cells(10), Target(threads=100_000))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no C\\+\\+ compiler 'no-such-compiler'"):
        make_engine(tiny.cells(10), Target(mode="compile"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="PyTorch finds no GPU here"):
        make_engine(tiny.cells(10), Target(device="cuda"))
