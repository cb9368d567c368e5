"""The outline of a graph: what it computes, node by node, with digests in the place of weights.

Bytes of weights are digested where they lie, one tensor at a time, so a model of any size takes no more memory than
its largest weight.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx
from onnx import helper, numpy_helper

from tailorbird.builder.graph.passes import reads
from tailorbird.domain.files import replacing
from tailorbird.domain.outline import Outline, OutlineNode, encode_outline

_STRUCTURAL = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.BOOL})
_STRUCTURAL_ELEMENTS = 64
"""Few whole numbers are shapes, axes and indices, which an architect wrote and no training changes."""


def write_outline(model: onnx.ModelProto, path: Path) -> None:
    """Write the outline of a normalised model as JSON, whole or not at all; raises :class:`OSError`."""
    with replacing(path) as file:
        file.write(encode_outline(outline_of(model)))


def outline_of(model: onnx.ModelProto) -> Outline:
    """The outline of a normalised model, external data inlined.

    Nodes inside branches and loops are part of the node that owns them: they enter its digests.

    Args:
        model: normalised, so that every node of the main graph has a name of its own.

    Returns:
        The nodes of the main graph in topological order.
    """
    weights = {tensor.name: _Weight(tensor) for tensor in model.graph.initializer}
    weights |= {tensor.values.name: _Weight(tensor.values, tensor.indices) for tensor in model.graph.sparse_initializer}
    makers = {value.name: value.name for value in model.graph.input}
    nodes = []
    for node in model.graph.node:
        nodes.append(_outlined(node, weights, makers))
        makers |= {name: node.name for name in node.output if name}
    return Outline(tuple(nodes))


class _Weight:
    """One constant tensor: its form, and the digest of its values, found once when it is asked for."""

    def __init__(self, *tensors: onnx.TensorProto) -> None:
        self._tensors = tensors
        self._digest = ""
        first = tensors[0]
        elements = 1
        for size in first.dims:
            elements *= size
        self.is_structural = first.data_type in _STRUCTURAL and elements <= _STRUCTURAL_ELEMENTS
        self.form = f"{helper.tensor_dtype_to_string(first.data_type)}{list(first.dims)}"

    @property
    def digest(self) -> str:
        """SHA-256 of the values, however they are stored."""
        if not self._digest:
            digest = hashlib.sha256()
            for tensor in self._tensors:
                digest.update(_values(tensor))
            self._digest = digest.hexdigest()
        return self._digest


class _Digests:
    """Collects what makes one node what it is: its form, and its weights apart."""

    def __init__(self) -> None:
        self._form = hashlib.sha256()
        self._weights = hashlib.sha256()
        self._weighted = False

    def form(self, *words: object) -> None:
        """Add to the form."""
        self._form.update(repr(words).encode())

    def weight(self, weight: _Weight) -> None:
        """Add one weight: its form, and its values where they belong."""
        self.form("weight", weight.form, weight.digest if weight.is_structural else "")
        if not weight.is_structural:
            self._weighted = True
            self._weights.update(weight.digest.encode())

    @property
    def texts(self) -> tuple[str, str]:
        """Digest of the form, and of the weights or nothing."""
        return f"sha256:{self._form.hexdigest()}", f"sha256:{self._weights.hexdigest()}" if self._weighted else ""


def _outlined(node: onnx.NodeProto, weights: dict[str, _Weight], makers: dict[str, str]) -> OutlineNode:
    digests = _Digests()
    _add_node(digests, node, weights)
    form, values = digests.texts
    read = dict.fromkeys(makers[name] for name in reads(node) if name in makers)
    return OutlineNode(node.name, node.op_type, tuple(read), form, values)


def _add_node(digests: _Digests, node: onnx.NodeProto, weights: dict[str, _Weight]) -> None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    digests.form(node.op_type, domain, len(node.output))
    for name in node.input:
        if name in weights:
            digests.weight(weights[name])
        else:
            digests.form("value" if name else "nothing")
    for attribute in sorted(node.attribute, key=lambda one: one.name):
        _add_attribute(digests, attribute, weights)


def _add_attribute(digests: _Digests, attribute: onnx.AttributeProto, weights: dict[str, _Weight]) -> None:
    digests.form("attribute", attribute.name, attribute.type)
    if attribute.type == onnx.AttributeProto.TENSOR:
        digests.weight(_Weight(attribute.t))
    elif attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        for graph in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
            _add_graph(digests, graph, weights)
    else:
        digests.form(_plain(attribute))


def _add_graph(digests: _Digests, graph: onnx.GraphProto, weights: dict[str, _Weight]) -> None:
    """A branch or a loop's body, which sees the weights around it, too. Its wiring is told by its own names."""
    inner = weights | {tensor.name: _Weight(tensor) for tensor in graph.initializer}
    digests.form([value.name for value in graph.input], [value.name for value in graph.output])
    for node in graph.node:
        digests.form(list(node.input), list(node.output))
        _add_node(digests, node, inner)


def _plain(attribute: onnx.AttributeProto) -> Any:
    kinds = onnx.AttributeProto
    if attribute.type in (kinds.FLOAT, kinds.FLOATS, kinds.INT, kinds.INTS, kinds.STRING, kinds.STRINGS):
        value = helper.get_attribute_value(attribute)
        return list(value) if attribute.type in (kinds.FLOATS, kinds.INTS, kinds.STRINGS) else value
    return hashlib.sha256(attribute.SerializeToString(deterministic=True)).hexdigest()


def _values(tensor: onnx.TensorProto) -> Any:
    """The values as bytes in the file's order; equal values digest alike in whichever field they are."""
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    if tensor.data_type == onnx.TensorProto.STRING:
        return repr(list(tensor.string_data)).encode()
    return numpy_helper.to_array(tensor).tobytes()
