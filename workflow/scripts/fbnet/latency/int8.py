"""ONNX files in 8-bit integers, as processors run deployed networks."""

import tempfile
from collections.abc import Iterable
from pathlib import Path


def quantise(source: Path, out: Path, images: Iterable) -> None:
    """Write an ONNX file anew in int8, statically: weights for each channel, activations by their range over these images.

    `images`: float32 arrays [N, C, H, W] of what the file's only input gets. Between the integer operators stand pairs of
    QuantizeLinear and DequantizeLinear (QDQ), as every runtime reads them.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str):
            self.batches = ({name: batch} for batch in images)

        def get_next(self) -> dict | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory(prefix="fbnet-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        types = {"weight_type": QuantType.QInt8, "activation_type": QuantType.QUInt8}
        quantize_static(prepared, out, Reader("images"), per_channel=True, **types)
        model = onnx.load(out)
        for part in [model.graph, *model.graph.node]:  # how its exporter came by each: half of a small file
            part.ClearField("metadata_props")
        onnx.save(model, out)
