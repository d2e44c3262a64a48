"""What an architecture is, for people: layer by layer, drawn in text, and as a model card."""

import csv
from collections.abc import Iterable
from pathlib import Path

from fbnet.architecture.budget import MORE, in_words
from fbnet.architecture.model import Model
from fbnet.architecture.timm_blocks import block_strings, model_arguments
from fbnet.errors import InputError
from fbnet.latency import LatencyTable, device_of, read_header, read_table
from fbnet.network import peak_values, size
from fbnet.space import Architecture, SearchSpace, compact

LISTED = 20  # class names on a card


def layers(architecture: Architecture, table: LatencyTable | None = None) -> list[dict]:
    """A mapping for each cell of the network, in order: its key, and `macs`, `params` and `latency_us` (None without table)."""
    latencies = table.cells_us(architecture.ops) if table else [None] * len(architecture.cells)
    rows = []
    for cell, latency_us in zip(architecture.cells, latencies, strict=True):
        macs, params = size([cell])
        keys = ("layer", "op", "c_in", "c_out", "height", "width", "stride", "expansion")
        rows.append({key: getattr(cell, key) for key in keys} | {"macs": macs, "params": params, "latency_us": latency_us})
    return rows


def describe(architecture: Architecture, table: LatencyTable | None = None) -> dict:
    """The architecture as plain data: its string and operators, totals of `macs`, `params`, `latency_us`, and its layers.

    `timm_blocks` are timm's block strings, None where it cannot express the architecture.
    """
    macs, params = size(architecture.cells)
    try:
        timm_blocks = block_strings(architecture)
    except InputError:
        timm_blocks = None
    return {
        "name": architecture.name,
        "space": architecture.space.name,
        "resolution": architecture.space.resolution,
        "classes": architecture.classes,
        "architecture": str(architecture),
        "ops": list(architecture.ops),
        "macs": macs,
        "params": params,
        "latency_us": table.predict(architecture.ops) if table else None,
        "timm_blocks": timm_blocks,
        "layers": layers(architecture, table),
    }


def text(description: dict) -> str:
    """A description as a table for the terminal: a line a layer, shapes as channels × height × width."""
    lines = [("layer", "operator", "input", "stride", "output", "MACs", "parameters", "latency, µs")]
    for row in description["layers"]:
        height, width = (-(-row[side] // row["stride"]) for side in ("height", "width"))
        output = f"{row['c_out']}" if row["op"] == "pool_fc" else f"{row['c_out']}×{height}×{width}"
        lines.append(
            (
                *(row["layer"], row["op"], f"{row['c_in']}×{row['height']}×{row['width']}", str(row["stride"]), output),
                *(f"{row['macs']:,}", f"{row['params']:,}", _us(row["latency_us"])),
            )
        )
    totals = (f"{description['macs']:,}", f"{description['params']:,}", _us(description["latency_us"]))
    lines.append(("total", "", "", "", "", *totals))
    if description["latency_us"] is None:
        lines = [line[:-1] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = 2  # columns of names; the others are flush right
    rows = [
        "  ".join(f"{part:{'<' if at < left else '>'}{wide}}" for at, (part, wide) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    head = f"{description['name']}: space {description['space']}, {description['resolution']}×{description['resolution']} images"
    return (
        "\n".join([f"{head}, {description['classes']} classes", description["architecture"], "", *map(str.rstrip, rows)]) + "\n"
    )


def _us(latency_us: float | None) -> str:
    return "" if latency_us is None else f"{latency_us:,.1f}"


def diagram(architecture: Architecture) -> str:
    """A line a stage: output shape, then a block a layer, a bar as long as its expansion; ── is an identity."""
    space = architecture.space
    path = iter(space.path(architecture.ops))
    stages = [[next(path) for _ in range(count)] for count in space.stages]
    rows = [("images", f"3×{space.resolution}×{space.resolution}", ""), ("stem", _output(space.stem), _block(space.stem))]
    for number, stage in enumerate(stages, 1):
        rows.append((f"stage {number}", _output(stage[-1]), "  ".join(map(_block, stage))))
    rows.append(("head", _output(space.head), f"{_block(space.head)}  average pool"))
    rows.append(("logits", str(architecture.classes), "fully connected"))
    widths = [max(len(row[at]) for row in rows) for at in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {blocks}".rstrip() for name, shape, blocks in rows) + "\n"


def _output(cell) -> str:
    return f"{cell.c_out}×{-(-cell.height // cell.stride)}×{-(-cell.width // cell.stride)}"


def _block(cell) -> str:
    if cell.is_identity:
        return "──"
    stride = f" ↓{cell.stride}" if cell.stride > 1 else ""
    return f"{'█' * cell.expansion} {cell.op.removeprefix('ir_')}{stride}"


def latencies(architecture: Architecture, tables: Iterable[Path], measurements: Iterable[Path]) -> dict[str, str]:
    """Rows of a card, in µs: what these tables predict of an architecture, and what was measured of it beside them.

    A measurement need not exist. Raises InputError.
    """
    predicted = {path: read_table(path, architecture.space, architecture.classes).predict(architecture.ops) for path in tables}
    measured = [_measured(path, architecture.ops, predicted.values()) for path in measurements if path.exists()]
    rows = {
        "predicted latency": [f"{us:,.0f} µs on {device_of(read_header(path))}" for path, us in predicted.items()],
        "measured latency": [words for words in measured if words],
    }
    return {key: "; ".join(values) for key, values in rows.items() if values}


def _measured(path: Path, ops: tuple[str, ...], predictions: Iterable[float]) -> str | None:
    """What a measurement says of an architecture; None if nothing, or if another table's prediction stands beside it."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        for row in csv.DictReader(lines, delimiter="\t"):
            if tuple(row["ops"].split()) == ops and any(abs(float(row["predicted_us"]) - us) < 1e-3 for us in predictions):
                header = read_header(path)
                how = "without" if header.get("allocator") == "keep" else "with"
                other = f"{float(row['other_us']):,.0f} µs there {how} the line that keeps memory" if row.get("other_us") else ""
                return ", ".join(filter(None, [f"{float(row['measured_us']):,.0f} µs on {device_of(header)}", other]))
    except (KeyError, ValueError, TypeError, AttributeError):
        raise InputError(f"{path} is no measurement as measure_architecture writes it: delete it") from None
    return None


def choice(path: Path, space: SearchSpace) -> dict[str, str]:
    """Rows of a card: what an architecture uses of its budgets, the runner-up, and what more of each budget would buy.

    `path` is a table of explain_choice. Raises InputError.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        chosen = f"that of this one {float(rows[0]['supernet_top1']):.1%}"
        said: dict[str, list[str]] = {"budgets": [], "runner-up": []}
        for row in rows[1:]:
            other = f"{compact(row['ops'].split(), space)}: {float(row['latency_us']):,.0f} µs, one-shot accuracy "
            other += f"{float(row['supernet_top1']):.1%}, {chosen}"
            name = row["budget"]
            if row["what"] == "more":
                used, most = (in_words(name, float(row[key])) for key in ("used", "most"))
                said["budgets"].append(f"{name} {used} of {most}{', which binds' if row['binds'] == 'yes' else ''}")
                same = row["ops"] == rows[0]["ops"]
                said[f"with {MORE - 1:.0%} more of {name}"] = ["the same" if same else other]
            else:
                said["runner-up"].append(other)
    except (OSError, KeyError, ValueError, IndexError, TypeError):
        raise InputError(f"{path} is no table as explain_choice writes it: delete it") from None
    return {key: "; ".join(values) for key, values in said.items() if values}


def card(model: Model, rows: dict[str, str], checks: dict[str, float], files: str) -> str:
    """A page of Markdown about an exported model. `rows` go into its table too, `checks` are what `export` returns.

    `files` is the name of the files without suffix.
    """
    architecture = model.architecture
    resolution, classes = architecture.space.resolution, architecture.classes
    macs, params = size(architecture.cells)
    table = {
        "input": f"float32 images [N, 3, {resolution}, {resolution}]",
        "preprocessing": model.preprocessing,
        "output": f"logits [N, {classes}]",
        "classes": _listed(model.classes),
        "parameters": f"{params:,}",
        "MACs per image": f"{macs:,}",
        "memory of activations": f"{in_words('memory', 4 * max(map(peak_values, architecture.cells)))} an image in float32",
    }
    table |= model.facts | rows
    cells = [(key, value.replace("|", "\\|")) for key, value in table.items() if value]
    return f"""# {architecture.name}

A ConvNet of search space {architecture.space.name}, for {resolution}×{resolution} images and {classes} classes.

    {architecture}

```
{diagram(architecture)}```

A block a layer: the bar is as long as its expansion, ↓2 is a stride of 2, ── an identity.

| | |
|---|---|
{"".join(f"| {key} | {value} |{chr(10)}" for key, value in cells)}
## Load it

`images` are the input that the table tells of, preprocessed. With onnxruntime alone:

```python
import onnxruntime
session = onnxruntime.InferenceSession("{files}.onnx")
[logits] = session.run(None, {{"images": images}})
```

With PyTorch alone. The second line makes glibc keep what an inference frees for the next one, which then is faster on a CPU; once
in a program is enough. Latencies of PyTorch are of modules, which timm builds too; a .pt2 takes some µs more an operation:

```python
import torch
torch.empty(33_000_000, dtype=torch.uint8)
model = torch.export.load("{files}.pt2").module()
logits = model(images)
```

The weights alone, by name: `safetensors.torch.load_file("{files}.safetensors")`.

{_in_timm(architecture, files)}
## Checked

The ONNX file, the .pt2 and the .safetensors were each loaded again and run on random images in batches of several sizes. The
largest difference of a logit from PyTorch's, divided by the largest logit:
{", ".join(f"{name} {value:.1e}" for name, value in checks.items())}.
"""


def _listed(classes: list[str]) -> str:
    """The names of the logits, in order; of very many the first."""
    more = f", … (all {len(classes)} in the metadata of the files)" if len(classes) > LISTED else ""
    return ", ".join(classes[:LISTED]) + more


def _in_timm(architecture: Architecture, files: str) -> str:
    try:
        blocks = block_strings(architecture)
    except InputError as error:
        return f"There is no file for timm: {error}.\n"
    arguments = ", ".join(f"{key}={value}" for key, value in model_arguments(architecture).items())
    stride = architecture.space.stem.stride
    stem = "" if stride == 2 else f"model.conv_stem.stride = ({stride}, {stride})\n"
    return f"""With timm, whose names the same weights have in `{files}.timm.safetensors`:

```python
from safetensors.torch import load_file
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet

blocks = {blocks}
model = EfficientNet(decode_arch_def(blocks), {arguments})
{stem}model.load_state_dict(load_file("{files}.timm.safetensors"), strict=True)
logits = model.eval()(images)
```
"""
