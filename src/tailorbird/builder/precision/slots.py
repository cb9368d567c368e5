"""Which inputs and outputs of a node can change from FP32 to a low format, by the operators' own schemas."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, defs

from tailorbird.builder.graph.passes import opset_of, subgraphs
from tailorbird.builder.precision.formats import Format

_APART = {("Resize", "T2")}
"""Type parameters that stay FP32 although the schema would let them go: roi is a place in a picture, as scales are."""

_WITHOUT_KERNELS = {("ConvTranspose", "tensor(bfloat16)")}
"""What ONNX allows and TensorRT's compiler refuses (TensorRT-RTX 1.7: "could not infer output types" of a deconv)."""

_ELSEWHERE = frozenset({
    "Bernoulli", "CastLike", "EyeLike", "RandomNormalLike", "RandomUniformLike",
    "ConcatFromSequence", "Optional", "OptionalGetElement", "SequenceAt", "SequenceConstruct", "SequenceErase",
    "SequenceInsert", "SplitToSequence",
})  # fmt: skip
"""Operators whose outputs' types do not follow from their tensors' types alone: from attributes, or by way of
sequences and optional values."""


@dataclass(frozen=True)
class Slots:
    """Positions of one node's inputs and outputs that take the low format together."""

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    obstacle: str = ""
    """Why there are none although the node reads or gives floats; empty where there are some, or nothing to lower."""

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)


def float_values(model: onnx.ModelProto) -> set[str]:
    """Names of the FP32 values of the main graph, constants included, as far as their types are told."""
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {name for name, kind in types.items() if kind == TensorProto.FLOAT}


def slots_of(model: onnx.ModelProto, floats: Container[str], low: Format) -> dict[str, Slots]:
    """The slots of every node of the main graph, by name.

    Args:
        model: every node has a name of its own.
        floats: from :func:`float_values`.
        low: the format.
    """
    opset = opset_of(model)
    return {node.name: _slots(node, floats, low, opset) for node in model.graph.node}


def _slots(node: onnx.NodeProto, floats: Container[str], low: Format, opset: int) -> Slots:
    if not any(name in floats for name in (*node.input, *node.output)):
        return Slots()
    if obstacle := _obstacle(node, low):
        return Slots(obstacle=obstacle)
    schema = defs.get_schema(node.op_type, opset)
    taken = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    free = {kind for kind, types in taken.items() if low.type_name in types and (node.op_type, kind) not in _APART}
    inputs = [(index, kind) for index, kind in _kinds(node.input, schema.inputs, floats) if kind in free]
    bound = {kind for _, kind in inputs} | ({"T2"} if _casts_to_float(node) else set())
    outputs = [index for index, kind in _kinds(node.output, schema.outputs, floats) if kind in free & bound]
    if not inputs and not outputs:
        return Slots(obstacle=f"{node.op_type} takes no {low.name.upper()}")
    return Slots(tuple(index for index, _ in inputs), tuple(outputs))


def _obstacle(node: onnx.NodeProto, low: Format) -> str:
    """Why no schema is asked; empty where one is."""
    if any(True for _ in subgraphs(node)):
        return "has branches or a body"
    if node.domain not in ("", "ai.onnx"):
        return f"is an operator of {node.domain}"
    if node.op_type in _ELSEWHERE:
        return f"{node.op_type} is no arithmetic"
    if (node.op_type, low.type_name) in _WITHOUT_KERNELS:
        return f"{node.op_type} has no {low.name.upper()} kernels in TensorRT"
    return ""


def _kinds(names: Any, formal: Any, floats: Container[str]) -> Iterator[tuple[int, str]]:
    """Position and type parameter of each FP32 value; the last formal one stands for all that follow."""
    for index, name in enumerate(names):
        if name in floats:
            yield index, formal[min(index, len(formal) - 1)].type_str


def _casts_to_float(node: onnx.NodeProto) -> bool:
    """Whether its output's type is named by an attribute that can be changed: no other operator is taken for such."""
    return node.op_type == "Cast" and any(one.name == "to" and one.i == TensorProto.FLOAT for one in node.attribute)
