"""How large a space is, and what a supernet costs: counted one by one, and by the numbers of steps."""

import itertools
import json
from contextlib import suppress

import pytest
import torch

from conftest import write_table
from fbnet.errors import InputError
from fbnet.latency import read_table
from fbnet.network import size
from fbnet.search.cost import Cost, cost
from fbnet.search.overview import costs, overview
from recipes import ONE_SHOT, SETTINGS

AIMS = {"form": "target", "target_us": None, "weight": 1.0}  # at a budget, which only its table knows in µs


def test_a_space_that_lists_channels_is_told_as_it_is_counted(elastic, tmp_path):
    table = read_table(write_table(tmp_path / "table.tsv", elastic), elastic, 10)
    sizes, latencies = [], []
    for ops in itertools.product(*(dict.fromkeys(cell.choice for cell in layer) for layer in elastic.layers)):
        with suppress(InputError):
            sizes.append(size(elastic.network_cells(ops, 10)))
            latencies.append(table.predict(ops))
    text = overview(elastic, 10, {"cpu": table})
    assert f"Space elastic: 4 layers, {len(sizes):,} networks, for 16×16 images" in text
    for at, what in enumerate(("MACs", "parameters")):
        one = [row[at] / 1e6 for row in sizes]
        assert f"  {what}: {min(one):.2f} M to {max(one):.2f} M" in text
    assert f"  latency on cpu: {min(latencies):.0f} to {max(latencies):.0f} µs" in text
    cells = elastic.cells(10)
    differ = {cell.build_key for cell in cells if not cell.is_identity}
    assert f"{len(cells)} entries, of which {len(differ)} differ and are measured: some {0.2 * len(differ):.0f} seconds" in text


def test_a_space_is_told_as_it_is_counted(tiny, tiny_table):
    networks = list(itertools.product(*([cell.op for cell in layer] for layer in tiny.layers)))
    sizes = [size(tiny.network_cells(ops, 10)) for ops in networks]
    latencies = [tiny_table.predict(ops) for ops in networks]
    text = overview(tiny, 10, {"cpu": tiny_table})
    assert f"Space tiny: 3 layers, {len(networks)} networks, for 16×16 images" in text
    for at, what in enumerate(("MACs", "parameters")):
        one = [row[at] / 1e6 for row in sizes]
        assert f"  {what}: {min(one):.2f} M to {max(one):.2f} M" in text
    assert f"  latency on cpu: {min(latencies):.0f} to {max(latencies):.0f} µs" in text
    assert "15 entries, of which 13 differ and are measured" in text


@pytest.mark.parametrize(
    ("values", "epochs"),
    [
        ({"method": "fbnet"} | SETTINGS | {"loss": AIMS}, {"weights": 4, "theta": 3}),
        ({"method": "one_shot"} | ONE_SHOT, {"weights": 4}),
    ],
    ids=["fbnet", "one_shot"],
)
def test_a_training_takes_its_steps_times_their_seconds(tiny, values, epochs):
    taken = cost(tiny, 10, values, 2000, torch.device("cpu"))
    assert taken.step_s.keys() == taken.steps.keys() == epochs.keys()
    assert taken.steps["weights"] == 1600 // values["batch_size"]
    assert all(seconds > 0 for seconds in taken.step_s.values())
    assert taken.seconds == pytest.approx(sum(epochs[phase] * taken.steps[phase] * taken.step_s[phase] for phase in epochs))
    assert taken.bytes > 12 * taken.parameters > 0


def test_a_cost_is_told_in_units_that_people_read():
    told = costs("one", Cost(3_400_000, {"weights": 2.5}, {"weights": 208}, 2.5 * 208 * 90, 5.25e9), 50_000, "on cpu")
    assert told == (
        "Supernet one: 3.40 M parameters, some 5.2 GB of memory; on cpu 2.50 s a step of weights (208 an epoch): 13.0 hours of "
        "training on 50000 images, evaluation aside\n"
    )


def test_the_script_tells_both(script, tiny, tmp_path):
    table = write_table(tmp_path / "phone.tsv", tiny)
    arguments = ["--space", "tiny", "--table", table, "--images", 1437, "--out", tmp_path / "space.txt"]
    done = script("describe_space", *arguments, "--supernet", "first", json.dumps({"method": "fbnet"} | SETTINGS | {"gpu": 0}))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "space.txt").read_text(encoding="utf-8")
    assert text in done.stderr + "\n"
    assert "  latency on phone: " in text
    assert "\nSupernet first: " in text
    wrong = script("describe_space", *arguments, "--supernet", "first", json.dumps({"method": "fbnet"}))
    assert wrong.returncode == 1
    assert "the settings of a search are" in wrong.stderr
    assert "Traceback" not in wrong.stderr
