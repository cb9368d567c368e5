"""NNCF's post-training quantisation of the ONNX graph itself: Q/DQ pairs, for OpenVINO to compile."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from tailorbird.builder.quantise.methods import QuantiseArgs, Quantised, Unit
from tailorbird.builder.quantise.nncf_package import calibration_set, load_nncf, nncf_border, notes, settings
from tailorbird.builder.quantise.nncf_transformer import is_transformer
from tailorbird.builder.quantise.onnx_graph import constants, elements, prepared, publish

_CARRIERS = frozenset(
    (
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Concat", "Slice", "Tile", "Expand"),
        *("Pad", "DepthToSpace", "SpaceToDepth", "Gather", "GatherND", "GatherElements", "MaxPool", "ReduceMax"),
    )
)
_IDLE = frozenset({"QuantizeLinear", "Shape"})


def quantise(args: QuantiseArgs) -> Quantised:
    """Quantise the ONNX model with NNCF; nothing can be kept in float.

    Constants and batch normalisation are folded first: NNCF 3.4 fails on a cast of a constant, and batch
    normalisation by itself would be quantised too. Writes ``model.onnx``, with weights over 1.5 GiB in
    ``model.onnx.data`` beside it.

    Raises:
        InputError: there is no sample to calibrate on.
        UsageError: the ranges are not offered.
        BackendError: NNCF or ONNX Runtime refused, with its own words.
        TailorbirdError: the result has another signature, or constants that are not finite.
    """
    nncf, data, source = load_nncf(), calibration_set(args), Path(args.model)
    with tempfile.TemporaryDirectory() as scratch:
        before = prepared(source, Path(scratch), args.threads)
    transformer = is_transformer(before)
    with nncf_border(args.seed):
        after = nncf.quantize(before, data, **settings(args, transformer))
    publish(after, source, Path(args.folder))
    return Quantised("model.onnx", _units(after), notes(transformer))


def _units(model: onnx.ModelProto) -> tuple[Unit, ...]:
    """Every operation that reads what was dequantised, be it through operations that only move values."""
    sizes = {name: elements(tensor) for name, tensor in constants(model).items()}
    fake: set[str] = set()
    found = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            sizes[node.output[0]] = sizes.get(node.input[0], 0)
            fake.update(node.output)
        elif fake.isdisjoint(node.input) or node.op_type in _IDLE:
            continue
        elif node.op_type in _CARRIERS and not any(one in fake and sizes[one] for one in node.input if one in sizes):
            fake.update(node.output)
        else:
            found.append(Unit(node.name, node.op_type, sum(sizes.get(one, 0) for one in node.input)))
    return tuple(found)
