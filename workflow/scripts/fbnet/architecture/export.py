"""A network as files that other tools load: torch.export program, ONNX, safetensors; each loaded again and compared."""

import json
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fbnet.architecture.card import card
from fbnet.architecture.model import Model
from fbnet.architecture.timm_blocks import to_timm
from fbnet.errors import InputError
from fbnet.latency import OPSET
from fbnet.network import Network
from fbnet.provenance import versions
from fbnet.runtime import replacing
from fbnet.space import Architecture

TOLERANCE = 1e-4  # largest difference of a logit, relative to the largest logit
BATCHES = (1, 2, 7)  # sizes to compare at: the batch dimension is free
SUFFIXES = (".pt2", ".onnx", ".safetensors", ".md")
TIMM = ".timm.safetensors"


def export(
    model: Model, latencies: dict[str, str], out: Path, more: Callable[[Path], dict[str, str]] = lambda onnx: {}
) -> dict[str, float]:
    """Write a model's files, named as `out` with SUFFIXES: the network in three forms, and the card, with these rows too.

    `more` makes more of the ONNX file, and returns rows of the card about that. All take float32 images [N, 3, H, W],
    preprocessed, of any N, and give logits [N, classes]. Where timm can express the network there is TIMM too, its weights under
    timm's names; otherwise none, nor one of an earlier export. Returns how far each form, loaded again, is from the network
    (largest difference / largest logit). Raises ArithmeticError if one differs by more than TOLERANCE.
    """
    architecture = model.architecture
    notes = {"name": architecture.name, "architecture": str(architecture), "space": json.dumps(architecture.space.definition)}
    notes |= {"weights": model.facts["weights"], "preprocessing": model.preprocessing}
    if model.classes:
        notes["classes"] = json.dumps(model.classes)
    made_with = {"made with": f"PyTorch {versions()['torch']}, ONNX opset {OPSET}"}
    network = model.network.eval().cpu().to(memory_format=torch.contiguous_format)
    with replacing(*map(out.with_suffix, SUFFIXES)) as (program, onnx, weights, page):
        differences = _write(architecture, network, program, onnx, weights, notes)
        page.write_text(card(model, latencies | more(onnx) | made_with, differences, out.stem), encoding="utf-8")
        _write_for_timm(architecture, network, out.with_suffix(TIMM), notes)
    return differences


def _write(
    architecture: Architecture, network: nn.Module, program: Path, onnx: Path, weights: Path, notes: dict[str, str]
) -> dict[str, float]:
    """Write the three forms; `notes` become metadata of ONNX and safetensors."""
    resolution = architecture.space.resolution
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(count, 3, resolution, resolution, generator=generator) for count in BATCHES]
    with torch.no_grad():
        expected = [network(images) for images in inputs]

        exported = torch.export.export(network, (inputs[1],), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(exported, program)
        loaded = torch.export.load(program).module()
        differences = {"torch.export": _difference([loaded(images) for images in inputs], expected)}

        graph = torch.onnx.export(
            exported,
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        graph.model.metadata_props.update(notes)
        graph.save(onnx)
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        outputs = [torch.from_numpy(session.run(None, {"images": images.numpy()})[0]) for images in inputs]
        differences["ONNX"] = _difference(outputs, expected)

        save_file(network.state_dict(), weights, notes)
        again = Network(architecture.space, architecture.ops, architecture.classes).eval()
        again.load_state_dict(load_file(weights))
        differences["safetensors"] = _difference([again(images) for images in inputs], expected)

    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"{name}: logits differ by {difference:.1e} of the largest one, more than {TOLERANCE:.0e}")
    return differences


def _write_for_timm(architecture: Architecture, network: nn.Module, path: Path, notes: dict[str, str]) -> None:
    try:
        weights = to_timm(architecture, network.state_dict())
    except InputError:  # the card says why
        path.unlink(missing_ok=True)
        return
    with replacing(path) as (temporary,):
        save_file(weights, temporary, notes)


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    found, expected = torch.cat(found), torch.cat(expected)
    return ((found - expected).abs().max() / expected.abs().max()).item()
