"""One-shot training: what a step learns, what operators turn out to be worth, and that it goes on where it was stopped."""

import json
import random
import signal
import subprocess
import time
from itertools import product

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from absent_gpu import CudaAutocast, NoWaits, fake_gpu
from conftest import ELASTIC, write_table
from fbnet.data.dataset import read_dataset
from fbnet.errors import InputError
from fbnet.latency import read_table
from fbnet.network import Network, size, subnetwork_weights
from fbnet.report.diagram import stage_diagram
from fbnet.report.worth_plot import worth_and_cost
from fbnet.runtime import StopRequest
from fbnet.search import OneShot, Search
from fbnet.search.worth import draw_of_all_sizes, worths, worths_of_candidates
from fbnet.settings import OneShotSettings, Settings
from fbnet.space import read_architectures, read_space
from fbnet.training import Ranks
from recipes import ONE_SHOT, SETTINGS, read, train
from whole_steps import is_last, layer_outputs

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def one_shot(digits, space, device=CPU, made_for=None, ranks=None, **changes) -> OneShot:
    return OneShot(read_dataset(digits), space, OneShotSettings.of(ONE_SHOT | changes), device, ranks, made_for)


def first_batch(search: OneShot):
    search.begin()
    images, labels = next(search.batches["weights"].training(0))
    return search.batches["weights"].normalised(images), labels


OTHERS = {"candidates": ["ir_k3_e3_se", "ir_k33_e1", "basic_block", "shift_5x5", "ir_k3_s4", "ir_k3", "ir_k5"], "expansion": 2}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("definition", "made_for"),
    [("tiny", "cpu"), (ELASTIC, "cpu"), (ELASTIC, "cuda"), (ELASTIC | OTHERS, "cpu"), (ELASTIC | {"norm": "none"}, "cpu")],
    ids=["tiny", "elastic", "elastic_cuda", "others", "no_norm"],
)
def test_a_step_has_the_gradients_of_the_plain_networks(digits, definition, made_for, shared):
    """The largest learns the labels, the others its outputs; of plain networks that have the weights of the supernet."""
    space = read_space(definition)
    search = one_shot(digits, space, shared_weights=shared, precision="float32", made_for=made_for)
    images, labels = first_batch(search)
    paths = [[0, 2, 3], [1, 3, 2]] if definition == "tiny" else draw_of_all_sizes(space, 3, 0).tolist()
    leaves = {
        name: value.clone().requires_grad_(value.is_floating_point()) for name, value in search.supernet.state_dict().items()
    }
    losses, aims = [], None
    for path in (search.largest, *paths):
        ops = space.ops(path)
        with torch.device("meta"):
            network = Network(space, ops, 10)
        for module in network.modules():
            module.track_running_stats = False
        logits = torch.func.functional_call(network.train(), subnetwork_weights(leaves, space, ops), (images,))
        with torch.no_grad():
            assert torch.allclose(search.supernet(images, None, path), logits, atol=1e-4)
        losses.append(cross_entropy(logits, labels if aims is None else aims))
        aims = logits.detach().softmax(1) if aims is None else aims
    sum(losses).backward()
    search.update(images, labels, paths)
    for layer, number in zip(space.layers, search.largest, strict=True):
        assert size([layer[number]])[0] == max(size([cell])[0] for cell in layer)
    for name, parameter in search.supernet.named_parameters():
        wanted = leaves[name].grad
        assert (parameter.grad is None) == (wanted is None), name
        assert wanted is None or torch.allclose(parameter.grad, wanted, atol=1e-5), name


def test_two_processes_take_the_halves_of_a_batch_and_go_the_same_way(digits, tiny):
    class Half(Ranks):
        def __init__(self, rank):
            self.rank, self.count, self.averaged = rank, 2, 0

        def average_gradients(self, parameters):
            self.averaged += sum(parameter.grad is not None for parameter in parameters)

    whole = one_shot(digits, tiny)
    images, labels = first_batch(whole)
    halves = [one_shot(digits, tiny, ranks=Half(rank), gpu=2) for rank in (0, 1)]
    start = whole.supernet.state_dict()
    assert all(torch.equal(value, start[name]) for half in halves for name, value in half.supernet.state_dict().items())
    batches = [first_batch(half) for half in halves]
    assert torch.equal(torch.cat([part for part, _ in batches]), images)
    assert torch.equal(torch.cat([part for _, part in batches]), labels)
    for half, batch in zip(halves, batches, strict=True):
        assert half.paths == whole.paths
        half.update(*batch, half.paths[:2])
        assert half.ranks.averaged > 10


def test_what_operators_are_worth_is_found_again():
    rng = np.random.default_rng(0)
    candidates = (4, 3, 5)
    true = [rng.normal(size=count) for count in candidates]
    paths = np.array(list(product(*map(range, candidates))))
    scores = 7 + sum(row[paths[:, layer]] for layer, row in enumerate(true))
    values, error, explained = worths(paths, scores, candidates)
    assert explained > 0.999
    for value, wanted in zip(values, true, strict=True):
        assert value == pytest.approx(wanted - wanted.mean(), abs=0.02)
    noisy, noisy_error, noisy_explained = worths(paths, scores + rng.normal(size=len(paths)), candidates)
    assert noisy_error > 10 * error
    assert noisy_explained < 0.9
    deviations = np.concatenate(noisy) - np.concatenate([wanted - wanted.mean() for wanted in true])
    assert 0.3 * noisy_error < np.sqrt(np.mean(deviations**2)) < 3 * noisy_error
    # nothing but noise explains nothing, and says so
    _, _, nothing = worths(paths, rng.normal(size=len(paths)), candidates)
    assert nothing < 0.2


def test_networks_of_all_sizes_are_drawn(tiny):
    space = read_space("fbnet_small")
    macs = np.array([[size([cell])[0] for cell in layer] for layer in space.layers])

    def spread(paths):
        return np.std(macs[np.arange(len(space.layers)), paths].sum(1))

    drawn = draw_of_all_sizes(space, 2000, 0)
    assert drawn.shape == (2000, 10)
    assert np.array_equal(drawn, draw_of_all_sizes(space, 2000, 0))
    assert not np.array_equal(drawn, draw_of_all_sizes(space, 2000, 1))
    uniform = np.random.default_rng(0).integers(9, size=(2000, 10))
    assert spread(drawn) > 1.3 * spread(uniform)
    counts = np.stack([np.bincount(row, minlength=9) for row in drawn.T])
    assert counts.min() > 60  # of 222 each, if all were alike


def test_networks_that_are_drawn_agree_and_are_of_all_channels(elastic):
    drawn = draw_of_all_sizes(elastic, 3000, 0)
    names = [elastic.ops(path) for path in drawn.tolist()]
    assert [elastic.numbers(ops) for ops in names] == [*map(tuple, drawn.tolist())]  # which refuses what does not agree
    cells = [elastic.path(ops) for ops in names]
    channels = [tuple(cell.c_out for cell in path) for path in cells]
    counts = {(a, b, b, c): channels.count((a, b, b, c)) for a, b, c in product((8, 16), (24, 16), (16, 24))}
    assert min(counts.values()) > 200  # of 375 each, if all were alike
    assert counts[16, 24, 24, 24] + counts[8, 16, 16, 16] > 1.15 * 3000 / 4  # they lean together to many channels, or to few
    macs = np.array([size(path)[0] for path in cells])
    wide = [one == (16, 24, 24, 24) for one in channels]
    assert macs[wide].mean() > 1.2 * macs.mean()
    for layer, numbers in zip(elastic.layers, drawn.T, strict=True):
        assert np.unique(numbers).tolist() == list(range(len(layer)))


def test_what_operators_and_channels_are_worth_is_found_again(elastic):
    rng = np.random.default_rng(0)
    ops = [{cell.op: rng.normal() for cell in layer} for layer in elastic.layers]
    channels = [{cell.c_out: rng.normal() for cell in layer} for layer in elastic.layers]
    channels[2] = dict.fromkeys(channels[2], 0.0)  # which its stage has chosen before
    wanted = [[ops[n][cell.op] + channels[n][cell.c_out] for cell in layer] for n, layer in enumerate(elastic.layers)]
    paths = draw_of_all_sizes(elastic, 800, 0)
    scores = [sum(row[number] for row, number in zip(wanted, path, strict=True)) for path in paths]
    values, _, explained = worths_of_candidates(elastic, paths, scores)
    assert explained > 0.999
    for value, row in zip(values, wanted, strict=True):
        assert value == pytest.approx(np.array(row) - np.mean(row), abs=0.05)


def test_theta_does_not_choose_channels(digits, elastic, tmp_path):
    table = read_table(write_table(tmp_path / "table.tsv", elastic), elastic, 10)
    with pytest.raises(InputError, match="method is 'fbnet', whose theta chooses operators alone, but space elastic lists"):
        Search(read_dataset(digits), table, Settings.of(SETTINGS), CPU)


@pytest.mark.xdist_group("export")  # whose worker exports anyway: to start with that takes seconds
def test_a_search_for_channels_ends_in_a_network_that_others_load(digits, elastic, script, tmp_path):
    def latency(cell):
        return size([cell])[0] / 1000 + 1

    def made(name, *arguments):
        done = script(name, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    space, supernet, found = tmp_path / "elastic.yaml", tmp_path / "search/supernet.pt", tmp_path / "found.tsv"
    space.write_text(json.dumps(elastic.definition), encoding="utf-8")
    path = write_table(tmp_path / "table.tsv", elastic, latency_us=latency)
    settings = {"method": "one_shot"} | ONE_SHOT | {"epochs": 2, "gpu": 0}
    trained = ("--data", digits, "--space", space, "--settings", json.dumps(settings), "--threads", 1)
    made("train_supernet", *trained, "--out", tmp_path / "search")
    theta = pd.read_csv(tmp_path / "search/theta.tsv", sep="	", dtype={"layer": str})
    choices = [dict.fromkeys((cell.layer, cell.choice) for cell in layer) for layer in elastic.layers]
    assert list(zip(theta.layer, theta.op, strict=True)) == [one for layer in choices for one in layer]
    assert theta.groupby("layer").probability.sum().to_list() == pytest.approx([1] * 4, abs=1e-5)

    table = read_table(path, elastic, 10)
    budget = f"{(table.least_us + table.most_us) / 2:.3f}us"
    sampled = ("--supernet", supernet, "--table", path, "--name", "found", "--latency-budget", budget)
    made("sample_architecture", *sampled, "--out", found)
    [row] = read_architectures(found, elastic)
    cells = elastic.network_cells(row["ops"], 10)
    assert float(row["latency_us"]) == pytest.approx(sum(map(latency, cells)), abs=1e-3)
    assert float(row["latency_us"]) <= float(budget.removesuffix("us"))
    assert (int(row["macs"]), int(row["params"])) == size(cells)

    made("export_modeldef", "--supernet", supernet, "--architectures", found, "--out", tmp_path / "found.py")
    exported = ("--arch", tmp_path / "found.json", "--supernet", supernet, "--data", digits)
    made("export_model", *exported, "--out", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    network = Network(elastic, row["ops"], 10).eval()
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert np.allclose(session.run(None, {"images": images.numpy()})[0], network(images), atol=1e-4)
    told = json.loads(made("describe_architecture", "--arch", tmp_path / "found.py", "--space", space, "--json"))
    assert (told["macs"], told["params"]) == size(cells)
    assert [(layer["c_in"], layer["c_out"]) for layer in told["layers"]] == [(cell.c_in, cell.c_out) for cell in cells]

    worth_and_cost(theta.to_dict("records"), table, "worth", tmp_path / "worth.svg")
    stage_diagram({"found": row["ops"]}, elastic, "found", tmp_path / "found.svg")
    for picture, text in (("worth", "2 16→24"), ("found", f"{cells[1].c_out}×8×8")):
        assert text in (tmp_path / f"{picture}.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_step_with_the_casts_of_cuda(digits, tiny, precision):
    exact = one_shot(digits, tiny, precision="float32")
    found = one_shot(digits, tiny, made_for="cuda", precision=precision)
    paths = [[0, 2, 3], [1, 3, 2]]
    exact.update(*first_batch(exact), paths)
    batch = first_batch(found)
    with CudaAutocast():
        found.update(*batch, paths)
    ours, theirs = (
        torch.cat([parameter.grad.flatten() for parameter in search.supernet.parameters() if parameter.grad is not None])
        for search in (found, exact)
    )
    assert (ours - theirs).norm() < (0.3 if precision == "bfloat16" else 1e-3) * theirs.norm()


def test_a_step_on_a_gpu_does_not_wait_for_it(digits):
    space = read_space("fbnet_cifar")
    from test_steps import images_of

    with fake_gpu():
        search = OneShot(images_of(space, 1200), space, OneShotSettings.of(ONE_SHOT | {"precision": "bfloat16"}), CUDA)
        outputs = layer_outputs(search.supernet)
        search.begin()
        images, labels = next(search.batches["weights"].training(0))
        with NoWaits():
            search.advance(search.batches["weights"].augmented(images, 1, True), labels)
        assert len(outputs) == 3 * 22
        assert {(y.dtype, is_last(y), y.device) for y in outputs} == {(torch.bfloat16, True, CUDA)}


def test_all_paths_learn(digits, tiny, tmp_path):
    search = one_shot(digits, tiny, epochs=8)
    search.run(tmp_path / "checkpoint.pt", "run", tmp_path / "tensorboard", 10, StopRequest())
    history = search.history_rows().set_index(["epoch", "phase"])
    assert history.loc[(7, "largest"), "top1"] > 0.75
    assert history.loc[(7, "random"), "top1"] > 0.5
    assert history.loc[(7, "rated"), "top1"] > 0.5
    assert [len(theta) for theta in search.theta] == [4, 4, 4]


def test_stopped_anywhere_it_ends_the_same(digits, tmp_path):
    settings = {"method": "one_shot"} | ONE_SHOT | {"epochs": 3, "rated": 150}

    def command(out):
        made = train(digits, "", out, settings, "--checkpoint-minutes", "0.001")
        return [word for number, word in enumerate(made) if "--table" not in (word, made[number - 1])]

    whole, out = tmp_path / "whole", tmp_path / "search"
    subprocess.run(command(whole), check=True, timeout=300, capture_output=True)
    log, rng = out.with_suffix(".log"), random.Random(0)
    for number, after in ((signal.SIGKILL, "Each epoch:"), (signal.SIGTERM, "Rating operators")):
        before = len(read(log))
        process = subprocess.Popen(command(out), stderr=subprocess.DEVNULL)
        while process.poll() is None and after not in read(log)[before:]:
            time.sleep(0.01)
        time.sleep(rng.random() / 3)
        process.send_signal(number)
        assert process.wait() != 0
    subprocess.run(command(out), check=True, timeout=300, capture_output=True)
    first, second = (torch.load(folder / "supernet.pt", weights_only=True) for folder in (whole, out))
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    assert (out / "theta.tsv").read_bytes() == (whole / "theta.tsv").read_bytes()
    columns = ["epoch", "phase", "loss", "ce", "top1", "top5"]
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "history.tsv", sep="\t")[columns] for folder in (whole, out)))
