"""A network as files that other tools load: torch.export program, ONNX, safetensors; each loaded again and compared."""

from pathlib import Path

import onnxruntime
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fbnet.latency import OPSET
from fbnet.network import Network
from fbnet.space import Architecture

TOLERANCE = 1e-4  # largest difference of a logit, relative to the largest logit
BATCHES = (1, 2, 7)  # sizes to compare at: the batch dimension is free


def export(
    architecture: Architecture, network: nn.Module, program: Path, onnx: Path, weights: Path, notes: dict[str, str]
) -> dict[str, float]:
    """Write the three files; returns how far each, loaded again, is from the network (largest difference / largest logit).

    All take float32 images [N, 3, H, W], normalised, of any N, and give logits [N, classes]. `notes` become metadata of ONNX
    and safetensors. Raises ArithmeticError if a file differs by more than TOLERANCE.
    """
    network = network.eval().cpu().to(memory_format=torch.contiguous_format)
    resolution = architecture.space.resolution
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(count, 3, resolution, resolution, generator=generator) for count in BATCHES]
    with torch.no_grad():
        expected = [network(images) for images in inputs]

        exported = torch.export.export(network, (inputs[1],), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(exported, program)
        loaded = torch.export.load(program).module()
        differences = {"torch.export": _difference([loaded(images) for images in inputs], expected)}

        model = torch.onnx.export(
            exported,
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        model.model.metadata_props.update(notes)
        model.save(onnx)
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        outputs = [torch.from_numpy(session.run(None, {"images": images.numpy()})[0]) for images in inputs]
        differences["ONNX"] = _difference(outputs, expected)

        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, weights, notes)
        again = Network(architecture.space, architecture.ops, architecture.classes).eval()
        again.load_state_dict(load_file(weights))
        differences["safetensors"] = _difference([again(images) for images in inputs], expected)

    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"{name}: logits differ by {difference:.1e} of the largest one, more than {TOLERANCE:.0e}")
    return differences


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    found, expected = torch.cat(found), torch.cat(expected)
    return ((found - expected).abs().max() / expected.abs().max()).item()
