"""The weights of a trained network: of its training runs the one that validates best, and what the card says of it."""

import json
import re

import numpy as np
import onnxruntime
import pytest
import torch

from conftest import BUDGET, with_settings
from fbnet.errors import InputError
from fbnet.evaluation.weights import trained
from fbnet.network import Network
from fbnet.provenance import file_hash
from fbnet.space import make_space


def test_the_best_training_run_of_a_search_is_exported(copy_of_evaluated):
    workflow, made = copy_of_evaluated, "results/trained/first.onnx"
    results = workflow.folder / "results"
    paths = [results / f"training/first/seed_{seed}/network.pt" for seed in (0, 1)]
    best = max((torch.load(path, weights_only=True) for path in paths), key=lambda run: run["validation_top1"])
    network = Network(make_space(best["space"]), best["ops"], 10).eval()
    network.load_state_dict(best["weights"])
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        expected = network(images).numpy()
    [logits] = onnxruntime.InferenceSession(results / "trained/first.onnx").run(None, {"images": images.numpy()})
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()

    card = (results / "trained/first.md").read_text(encoding="utf-8")
    for text in (
        f"for 3 epochs with seed {best['settings']['seed']}: the best in validation accuracy of 2 training runs",
        f"| top-1 {best['test_top1']:.2%} in this training run",
        f"| top-1 {best['validation_top1']:.2%}, on 20% of the training images",
        *("of the training images of digits", "predicted latency", "| 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 |"),
    ):
        assert text in card, text
    assert "supernet" not in card
    description = json.loads((results / "data/digits/dataset.json").read_text(encoding="utf-8"))
    assert all(f"{value:.4f}" in card for value in (*description["mean"], *description["std"]))

    assert workflow.planned(made) == set()
    assert workflow.planned("results/trained/random_cpu_2s_2.onnx") == {"export_trained"}
    workflow.configure(with_settings(searches={"first": BUDGET}, train__epochs=4))
    assert workflow.planned("all_trained") == {"train_architecture", "export_trained", "all_trained"}
    refused = workflow("--dry-run", "results/trained/random_cpu_2s_3.onnx")
    assert "random_cpu_2s_3 is no network of the evaluation; those are first, rule_macs_cpu_2s, random_cpu_2s_1" in refused.stdout


@pytest.fixture
def save_run(tiny, digits, tmp_path):
    """Write a network.pt as train_architecture does, untrained, with the accuracies that a test wants."""

    def save(seed, validation_top1, test_top1, **changes):
        torch.manual_seed(seed)
        ops = ["ir_k3_e1", "skip", "ir_k5_e3"]
        run = {"weights": Network(tiny, ops, 10).state_dict(), "validation_top1": validation_top1, "test_top1": test_top1}
        run |= {"name": "a", "space": tiny.definition, "ops": ops, "classes": [str(digit) for digit in range(10)]}
        run |= {"settings": {"seed": seed, "epochs": 3, "validation_share": 0.125}, "supernet_sha256": None}
        run |= {"epochs": 3, "entrants": None}
        path = tmp_path / f"{seed}.pt"
        torch.save(run | {"data_sha256": file_hash(digits / "dataset.json")} | changes, path)
        return path

    return save


def test_the_validation_images_choose_and_not_the_test_set(save_run, digits):
    runs = [save_run(0, 0.8, 0.9), save_run(1, 0.9, 0.7), save_run(2, 0.9, 0.95)]  # of equals the first
    model = trained(runs, digits)
    chosen = torch.load(runs[1], weights_only=True)
    assert all(torch.equal(value, chosen["weights"][name]) for name, value in model.network.state_dict().items())
    assert "with seed 1: the best in validation accuracy of 3 training runs" in model.facts["weights"]
    assert "70.00%" in model.facts["test accuracy"]
    assert re.search(r"90.00%, on 12.5% of", model.facts["validation accuracy"])
    alone = trained([save_run(3, 0.1, 0.1, supernet_sha256="f00")], digits)
    assert alone.facts["weights"] == "trained from the supernet's weights for 3 epochs with seed 3: the only training run"
    winner = trained([save_run(4, 0.1, 0.1, epochs=7, entrants=10)], digits)
    assert winner.facts["weights"].endswith(
        "for 7 epochs with seed 4: the winner in validation accuracy of a race among 10 architectures"
    )


def test_runs_that_do_not_belong_together_are_refused(save_run, digits, tmp_path):
    first = save_run(0, 0.8, 0.9)
    with pytest.raises(InputError, match=r"0.pt and .*1.pt are of different networks"):
        trained([first, save_run(1, 0.9, 0.9, ops=["skip"] * 3)], digits)
    with pytest.raises(InputError, match=r"2.pt was trained on another dataset than .*digits"):
        trained([first, save_run(2, 0.7, 0.9, data_sha256="f00")], digits)
    whole = first.read_bytes()
    torch.save([1], tmp_path / "list.pt")
    for content in (b"", b"no network", whole[: len(whole) // 2], (tmp_path / "list.pt").read_bytes()):
        (tmp_path / "broken.pt").write_bytes(content)
        with pytest.raises(InputError, match=r"broken.pt is no network that train_architecture wrote \(\w+\): train it again"):
            trained([first, tmp_path / "broken.pt"], digits)


def test_what_is_no_network_ends_the_export_in_a_sentence(script, digits, tmp_path):
    (tmp_path / "network.pt").write_bytes(b"no network")
    done = script(
        "export_model", "--trained", tmp_path / "network.pt", "--data", digits, "--out", tmp_path / "x.onnx", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "network.pt is no network that train_architecture wrote" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["network.pt"]
