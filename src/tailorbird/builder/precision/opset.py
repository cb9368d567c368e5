"""Operator sets in which the low format is there: bfloat16 convolutions from 22 on, half Q/DQ from 19 on."""

from __future__ import annotations

import onnx

from tailorbird.builder.graph.opset import converted
from tailorbird.builder.graph.passes import opset_of
from tailorbird.builder.precision.formats import Format
from tailorbird.builder.precision.slots import float_values, slots_of
from tailorbird.builder.sources.onnx_file import without_weights

PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_QUANTISED_OPSET = 19


def raised(model: onnx.ModelProto, low: Format) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model in an operator set where more of its nodes take the format, and what to tell of it.

    Args:
        model: every node has a name, every inner FP32 value its type.
        low: the format.
    """
    wanted = _wanted(model, low)
    if opset_of(model) >= wanted or not _gains(model, low, wanted):
        return model, ()
    try:
        return converted(model, wanted), (f"operator set {wanted} instead of {opset_of(model)}",)
    except Exception as error:  # the converter raises classes of its own
        return model, (f"operator set {wanted} is out of reach: {' '.join(str(error).split())[:200]}",)


def _wanted(model: onnx.ModelProto, low: Format) -> int:
    quantised = any(node.op_type in PAIRS for node in model.graph.node)
    return max(low.opset, _QUANTISED_OPSET if quantised else 0)


def _gains(model: onnx.ModelProto, low: Format, opset: int) -> bool:
    """Whether some node has more slots there."""
    floats = float_values(model)
    light = without_weights(model)
    before = slots_of(light, floats, low)
    for entry in light.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    return slots_of(light, floats, low) != before
