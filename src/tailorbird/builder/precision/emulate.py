"""A lowered graph as one in FP32 that any runtime runs, with every low value really rounded.

ONNX Runtime's CPU has no BF16 kernels, and its FP16 graphs run in FP32 between casts of which it takes out those that
stand back to back, so that values in the middle are never rounded. A Cast to the format and another one back is
what both formats have, and what no optimiser may take out, because it changes values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.sources.onnx_file import read_model, write_model

_LOW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def emulation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same numbers in FP32: each node computes in FP32, and what it gives in a low format is rounded to it.

    Args:
        model: from :func:`tailorbird.builder.precision.lower.lower`; inner values have their types.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    lows = {value.name: value.type.tensor_type.elem_type for value in copy.graph.value_info
            if value.type.tensor_type.elem_type in _LOW}  # fmt: skip
    nodes = [made for node in copy.graph.node for made in _emulated(node, lows)]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    del copy.graph.value_info[:]
    for tensor in copy.graph.initializer:
        if tensor.data_type in _LOW:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    return copy


def emulated(path: Path, folder: Path) -> Path:
    """A file of such a graph, as one that computes the same numbers in FP32: itself where it has no low value.

    Args:
        path: a lowered ONNX file, or any other.
        folder: an existing directory for the copy.
    """
    model = read_model(path)
    if not any(value.type.tensor_type.elem_type in _LOW for value in model.graph.value_info):
        return path
    target = folder / "emulated.onnx"
    write_model(emulation(model), target)
    return target


def _emulated(node: onnx.NodeProto, lows: dict[str, int]) -> Iterator[onnx.NodeProto]:
    if node.op_type == "Cast" and (node.input[0] in lows or node.output[0] in lows):
        yield from _conversion(node, lows)
        return
    narrowed = [(index, name) for index, name in enumerate(node.output) if name in lows]
    for index, name in narrowed:
        node.output[index] = f"{name} unrounded"
    yield node
    for _, name in narrowed:
        yield from _rounding(f"{name} unrounded", name, lows[name])


def _conversion(node: onnx.NodeProto, lows: dict[str, int]) -> Iterator[onnx.NodeProto]:
    source, target = node.input[0], node.output[0]
    if target in lows:
        yield from _rounding(source, target, lows[target])
    else:  # from a low format, whose values are FP32 here
        yield node


def _rounding(source: str, target: str, element: int) -> Iterator[onnx.NodeProto]:
    yield helper.make_node("Cast", [source], [f"{target} narrow"], name=f"{target} narrow", to=element)
    yield helper.make_node("Cast", [f"{target} narrow"], [target], name=f"{target} rounded", to=TensorProto.FLOAT)
