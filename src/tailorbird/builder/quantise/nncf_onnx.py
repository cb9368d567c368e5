"""NNCF's post-training quantisation of the ONNX graph itself: Q/DQ nodes, for OpenVINO to compile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tailorbird.builder.quantise.methods import QuantiseArgs, Quantised, Unit
from tailorbird.builder.quantise.nncf_package import Promise, calibration_set, load_nncf, nncf_border, settings
from tailorbird.builder.quantise.nncf_transformer import is_transformer
from tailorbird.builder.quantise.onnx_graph import name_nodes
from tailorbird.builder.sources.onnx_file import read_model, write_model

MODEL = "model.onnx"

_QUANTISING = ("QuantizeLinear", "DequantizeLinear")
_CARRIERS = frozenset(
    (
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Concat", "Slice", "Tile", "Expand"),
        *("Pad", "DepthToSpace", "SpaceToDepth", "Gather", "GatherND", "GatherElements", "MaxPool", "ReduceMax"),
    )
)
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def quantise(args: QuantiseArgs) -> Quantised:
    """Quantise the ONNX model with NNCF; nothing can be kept in float.

    Writes ``model.onnx``, with weights over 1.5 GiB in ``model.onnx.data`` beside it.

    Raises:
        InputError: there is no sample to calibrate on.
        UsageError: the ranges are not offered.
        BackendError: NNCF refused, with its own words.
        StepError: the result has another signature, or constants that are not finite.
    """
    nncf, data = load_nncf(), calibration_set(args)
    before = name_nodes(read_model(Path(args.model)))
    transformer, promise = is_transformer(before), _promise_of(before)
    with nncf_border(args.seed):
        after = nncf.quantize(before, data, **settings(args, transformer))
    promise.check(_promise_of(after))
    write_model(after, Path(args.folder) / MODEL)
    return Quantised(MODEL, _units(after), ("quantised as a transformer",) if transformer else ())


def _units(model: onnx.ModelProto) -> tuple[Unit, ...]:
    """Every operation that reads what was dequantised, be it through operations that only move values."""
    sizes = {tensor.name: int(np.prod(tensor.dims, dtype=np.int64)) for tensor in model.graph.initializer}
    fake: set[str] = set()
    found = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            sizes[node.output[0]] = sizes.get(node.input[0], 0)
            fake.update(node.output)
        elif node.op_type in _CARRIERS and not fake.isdisjoint(node.input):
            fake.update(node.output)
        elif node.op_type not in _QUANTISING and not fake.isdisjoint(node.input):
            found.append(Unit(node.name or node.output[0], node.op_type, sum(sizes.get(one, 0) for one in node.input)))
    return tuple(found)


def _promise_of(model: onnx.ModelProto) -> Promise:
    held = {tensor.name for tensor in model.graph.initializer}
    ports = [port for port in model.graph.input if port.name not in held]
    return Promise(
        signature=tuple(onnx.helper.printable_value_info(port) for port in (*ports, *model.graph.output)),
        broken=frozenset(tensor.name for tensor in model.graph.initializer if not _is_finite(tensor)),
    )


def _is_finite(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type not in _FLOATS or bool(np.isfinite(numpy_helper.to_array(tensor)).all())
