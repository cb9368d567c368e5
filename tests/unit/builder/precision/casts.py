"""Small graphs brought to a low precision, with care and without, and how near they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tailorbird.builder.cases.data import save_set
from tailorbird.builder.precision.cast import cast
from tailorbird.builder.precision.emulate import emulation
from tailorbird.builder.precision.formats import FORMATS
from tailorbird.builder.precision.lower import lower
from tailorbird.builder.precision.opset import raised
from tailorbird.builder.precision.records import LowerArgs, Lowered
from tailorbird.builder.precision.slots import float_values, slots_of
from tailorbird.builder.quantise.onnx_graph import prepared
from tailorbird.builder.sources.onnx_file import write_model
from tailorbird.domain.precision import Precision
from tests.unit.builder.graphs import save
from tests.unit.builder.quantise.onnx_graphs import run

Feeds = dict[str, Any]


def args(made: onnx.ModelProto, folder: Path, precision: Precision, samples: list[Feeds]) -> LowerArgs:
    """A call on that model, with files of its own."""
    files = [folder / f"sample{index}.npz" for index in range(len(samples))]
    for file, sample in zip(files, samples, strict=True):
        save_set(file, sample)
    out = folder / f"out-{precision}-{sum(path.is_dir() for path in folder.iterdir())}"
    out.mkdir()
    source = save(made, folder / f"{out.name}.onnx")
    return LowerArgs(str(source), precision, tuple(map(str, files)), str(out), 1)


def lowered(
    made: onnx.ModelProto, folder: Path, precision: Precision, samples: list[Feeds]
) -> tuple[Lowered, onnx.ModelProto]:
    """What our lowering says and writes."""
    call = args(made, folder, precision, samples)
    found = lower(call)
    return found, onnx.load(Path(call.folder) / found.model)


def careless_db(made: onnx.ModelProto, folder: Path, precision: Precision, inputs: Feeds) -> float:
    """The worst output, in dB, when every node goes low that can; minus infinity when it is NaN or infinite."""
    call = args(made, folder, precision, [inputs])
    low = FORMATS[precision]
    model, _ = raised(prepared(Path(call.model), Path(call.folder), 1, ("MatMulAddFusion",)), low)
    slots = slots_of(model, float_values(model), low)
    cast(model, [name for name, one in slots.items() if one], slots, low)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    path = Path(call.folder) / "careless.onnx"
    write_model(emulation(typed), path)
    pairs = list(zip(run(call.model, inputs), run(path, inputs), strict=True))
    return min(_db(true, got) for true, got in pairs if true.dtype.kind == "f")


def _db(true: Any, got: Any) -> float:
    noise = float(np.sum((true.astype(np.float64) - got) ** 2))
    if not np.isfinite(noise):
        return -np.inf
    return float(10 * np.log10(np.sum(true.astype(np.float64) ** 2) / max(noise, 1e-300)))


def why(found: Lowered) -> dict[str, str]:
    """Reasons by node."""
    return {kept.node: kept.why for kept in found.kept}


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of all values."""
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def cast_pairs(model: onnx.ModelProto) -> list[str]:
    """Casts of what a Cast gives."""
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    given = {node.output[0] for node in casts}
    return [node.name for node in casts if node.input[0] in given]
