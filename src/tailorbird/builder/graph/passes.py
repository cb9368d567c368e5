"""The graph passes of :mod:`tailorbird.builder.graph.normalise`, each a function from model to model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tailorbird.builder.sources.graph_check import byte_count, tensors
from tailorbird.domain.errors import ModelError

TARGET_OPSET = 17
"""Per-channel quantisation needs 13, LayerNormalization is one operator from 17 on."""

TARGET_IR = 8
"""The file version that goes with it. From 4 on a weight need not pose as an input."""

_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
"""Attributes of Constant that hold numbers without a tensor around them."""

_LIMIT = 2**31 - 1
"""Protocol buffers hold no message over 2 GiB, and the C++ passes take serialised models."""


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def has_old_opset(model: onnx.ModelProto) -> bool:
    """Whether the default operator set is older than what quantisation and the runtimes do best with."""
    return 0 < opset_of(model) < TARGET_OPSET


def upgrade_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in the target operator set; raises when the converter knows no way."""
    _refuse_large(model)
    return _with_ir(onnx.version_converter.convert_version(model, TARGET_OPSET))


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of inner values filled in where they follow."""
    _refuse_large(model)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def has_constant_nodes(model: onnx.ModelProto) -> bool:
    """Whether weights that could be initializers hide in Constant nodes."""
    return any(map(_is_liftable, model.graph.node))


def lift_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constant nodes of the main graph become initializers, where every tool looks for weights."""
    kept = []
    for node in model.graph.node:
        if _is_liftable(node):
            tensor = _constant_value(node)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    _replace_nodes(model.graph, kept)
    return _with_ir(model)


def drop_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without nodes and initializers that no output needs, and without initializers posing as inputs."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output) or not node.output:
            kept.append(node)
            needed |= set(reads(node))
    _replace_nodes(model.graph, kept[::-1])
    posing = {tensor.name for tensor in model.graph.initializer}
    _replace(model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name in needed])
    _replace(model.graph.input, [value for value in model.graph.input if value.name not in posing])
    return _with_ir(model)


def has_clashing_names(model: onnx.ModelProto) -> bool:
    """Whether one name is given to two values of the main graph, which runtimes refuse or confuse."""
    names = list(_defined(model.graph))
    return len(names) != len(set(names))


def make_names_unique(model: onnx.ModelProto) -> onnx.ModelProto:
    """A value whose name is taken gets a new one, for its definition and every later use.

    Exporters write nodes in the order they run, so a later use means the latest definition. A graph
    output keeps its name: when the last definition of it was renamed, the two names are swapped.
    """
    taken = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    current: dict[str, str] = {}
    for node in model.graph.node:
        _rename_reads(node, current)
        for index, name in enumerate(node.output):
            if name:
                current[name] = node.output[index] = free_name(name, taken)
    _restore_outputs(model.graph, current)
    del model.graph.value_info[:]
    return model


def has_unnamed_nodes(model: onnx.ModelProto) -> bool:
    """Whether a node of the main graph has no name, or that of another one."""
    names = [node.name for node in model.graph.node]
    return "" in names or len(names) != len(set(names))


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every node of the main graph gets a name of its own: layers, comparisons and what is kept go by it.

    A node without one is called after its first output, as OpenVINO would call it.
    """
    taken: set[str] = set()
    for node in sorted(model.graph.node, key=lambda one: not one.name):  # names that were given come first
        node.name = free_name(node.name or next(filter(None, node.output), node.op_type), taken)
    return model


def check_order(model: onnx.ModelProto) -> None:
    """Raise :class:`ModelError` when a node reads a value before it is defined."""
    known = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer} | {""}
    known |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    for node in model.graph.node:
        unknown = set(node.input) - known
        if unknown:
            name = sorted(unknown)[0]
            raise ModelError(f"node '{node.name or node.op_type}' reads '{name}' before it is defined")
        known |= set(node.output)


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    inputs = {value.name for value in graph.input}
    yield from inputs
    yield from (tensor.name for tensor in graph.initializer if tensor.name not in inputs)
    yield from (name for node in graph.node for name in node.output if name)


def free_name(name: str, taken: set[str]) -> str:
    """The name itself, or with a number behind it where it is taken; it is taken from then on."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}__{count}"
    taken.add(free)
    return free


def _rename_reads(node: onnx.NodeProto, current: dict[str, str]) -> None:
    for index, name in enumerate(node.input):
        node.input[index] = current.get(name, name)
    for graph in subgraphs(node):
        own = set(_defined(graph))
        outer = {name: renamed for name, renamed in current.items() if name not in own}
        for inner in graph.node:
            _rename_reads(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def _restore_outputs(graph: onnx.GraphProto, current: dict[str, str]) -> None:
    for value in graph.output:
        renamed = current.get(value.name, value.name)
        if renamed != value.name:
            swap = {renamed: value.name, value.name: renamed}
            for tensor in graph.initializer:
                tensor.name = swap.get(tensor.name, tensor.name)
            for node in graph.node:
                _rename_reads(node, swap)
                for index, name in enumerate(node.output):
                    node.output[index] = swap.get(name, name)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values a node reads, those that its branches and bodies read from around them among them."""
    yield from node.input
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from reads(inner)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The branches and bodies that a node holds."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _is_liftable(node: onnx.NodeProto) -> bool:
    """Strings and sparse values stay nodes: few tools take them as initializers."""
    names = {attribute.name for attribute in node.attribute}
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx") and bool(names & {"value", *_NUMBERS})


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return onnx.TensorProto.FromString(value.SerializeToString())
    return numpy_helper.from_array(np.array(value, dtype=_NUMBERS[attribute.name]))


def _with_ir(model: onnx.ModelProto) -> onnx.ModelProto:
    model.ir_version = max(model.ir_version, TARGET_IR)
    return model


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    _replace(graph.node, nodes)


def _replace(field: object, values: list[object] | list[onnx.NodeProto]) -> None:
    copies = list(values)
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]


def _refuse_large(model: onnx.ModelProto) -> None:
    size = sum(byte_count(tensor) for tensor in tensors(model))  # ByteSize() itself fails above the limit
    if size > _LIMIT:
        raise ModelError("the model is too large for this pass", got=f"{size >> 20} MiB", expected="2 GiB")
