"""The shape of every value of a graph, once the input shapes are known."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx.inliner
from onnx.reference import ReferenceEvaluator

from tailorbird.builder.graph.passes import has_clashing_names, make_names_unique
from tailorbird.builder.sources.graph_check import element_bits
from tailorbird.builder.sources.onnx_file import signature_of, without_weights
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import ModelError
from tailorbird.domain.signature import Shape, Shapes

# fmt: off
_FOLDED = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Concat", "Constant", "Div", "Equal", "Flatten", "Floor", "Gather",
    "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not", "ReduceProd", "ReduceSum",
    "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
"""What exporters compute shapes with, and cannot make a large result out of small inputs."""

_FOLD_ELEMENTS = 256
"""Only arrays up to this many elements are computed with: shapes, axes, scales."""

_ROUNDS = 16
"""Turns of inference and evaluation: one for each shape that is computed from the shape of a reshaped value."""


class Value(msgspec.Struct, frozen=True):
    """Element type (a ``TensorProto.DataType`` number) and shape of one value."""

    elem_type: int
    shape: Shape

    @property
    def elements(self) -> int:
        """Product of the dims."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of a dense copy; 0 for strings, whose size no shape tells."""
        return (self.elements * element_bits(self.elem_type) + 7) // 8


def bound_model(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """A copy of the model at concrete input shapes, with every shape that follows from them.

    Weights over 1 KiB are left out (they stand as inputs of their shape), functions are inlined, and what the
    file itself claims about inner values is dropped, because it was said of other shapes. ONNX shape inference
    alone loses its way in computed shapes, so it takes turns with evaluating the small nodes that compute them.

    Args:
        model: a model as :func:`tailorbird.builder.sources.onnx_file.read_model` gives it.
        shapes: the shape of every input, by name.

    Raises:
        InputError: the shapes contradict the signature.
        ModelError: ONNX shape inference refuses the model.
    """
    signature_of(model).bind(shapes)
    light = without_weights(model)
    try:
        light = onnx.inliner.inline_local_functions(light) if light.functions else light
        _fix(light.graph, shapes)
        light = make_names_unique(light) if has_clashing_names(light) else light
        return _inferred_in_turns(light)
    except Exception as error:  # the C++ code raises classes of its own, and bare RuntimeError
        raise ModelError("ONNX shape inference refuses the model", got=error) from None


def known_values(graph: Any) -> dict[str, Value]:
    """The values of a graph, by name, whose type and whole shape are known."""
    return {name: value for name, value in _declared(graph) if value is not None}


def _declared(graph: Any) -> Iterator[tuple[str, Value | None]]:
    for info in (*graph.input, *graph.output, *graph.value_info):
        yield info.name, _value(info)
    for tensor in graph.initializer:
        yield tensor.name, Value(tensor.data_type, tuple(tensor.dims))
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, Value(sparse.values.data_type, tuple(sparse.dims))


def _value(info: Any) -> Value | None:
    tensor = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        return None
    if not all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in tensor.shape.dim):
        return None
    return Value(tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim))


def _fix(graph: Any, shapes: Shapes) -> None:
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size


def _inferred_in_turns(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inference, evaluation, inference, … until nothing new is found; a later turn that fails ends it."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    with contextlib.suppress(Exception):  # what was inferred before stands
        for _ in range(_ROUNDS):
            if not _fold(inferred):
                break
            inferred = onnx.shape_inference.infer_shapes(inferred, data_prop=True)
    return inferred


def _fold(model: onnx.ModelProto) -> int:
    """Add the results of small nodes as initializers, which inference reads; the nodes stay. How many are new."""
    graph = model.graph
    shapes = known_values(graph)
    small = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _FOLD_ELEMENTS]
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in small}
    already = len(arrays)
    for node in graph.node:
        if node.op_type in _FOLDED and not node.domain and node.output[0] not in arrays:
            for name, array in zip(node.output, _results(node, arrays, shapes, model), strict=False):
                arrays[name] = array
                graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return len(arrays) - already


def _results(node: Any, arrays: dict[str, Array], shapes: dict[str, Value], model: onnx.ModelProto) -> list[Array]:
    """A node's outputs when they can be computed and are small, otherwise nothing."""
    inputs = {name: arrays[name] for name in node.input if name in arrays}
    if node.op_type in {"Shape", "Size"} and node.input[0] in shapes:
        # Their answer lies in the shape alone: a view of one zero takes no memory.
        inputs = {node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]].shape)}
    if not set(filter(None, node.input)) <= set(inputs) or any(map(_stores_much, node.attribute)):
        return []
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    single = onnx.helper.make_model(
        onnx.helper.make_graph([node], "fold", infos, outputs), opset_imports=model.opset_import
    )
    try:
        with np.errstate(all="ignore"):
            results = [np.asarray(result) for result in ReferenceEvaluator(single).run(None, inputs)]
    except Exception:  # a node that cannot be computed is left to shape inference
        return []
    return results if all(result.size <= _FOLD_ELEMENTS for result in results) else []


def _stores_much(attribute: Any) -> bool:
    return len(attribute.t.raw_data) > 8 * _FOLD_ELEMENTS or math.prod(attribute.t.dims) > _FOLD_ELEMENTS
