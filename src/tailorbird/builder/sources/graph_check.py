"""Is a parsed ``ModelProto`` a model? Its versions, tensors, operators and value names.

Not ``onnx.checker``: that one refuses graphs which :mod:`tailorbird.builder.graph.normalise` repairs (a name given to
two values, nodes out of order), looks for external data itself, and does not compare tensor bytes with dims.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import onnx

from tailorbird.domain.errors import ModelError, nearest

RUNTIME_DOMAINS = frozenset({"com.microsoft"})
"""Operator sets that ONNX has no schemas for and a runtime may know: left to the backends."""

_RUNTIME_OPS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
"""Operators that ONNX Runtime's optimiser writes into the default domain at any opset."""

# Bits of one element by TensorProto.DataType (onnx.proto). STRING (8) has no fixed size.
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    15: 128,
}
_STRING = 8
# The typed field that holds a type's elements (onnx.proto), and how many entries it has for each element.
_FIELDS = {
    1: ("float_data", 1.0),
    14: ("float_data", 2.0),
    11: ("double_data", 1.0),
    15: ("double_data", 2.0),
    7: ("int64_data", 1.0),
    12: ("uint64_data", 1.0),
    13: ("uint64_data", 1.0),
    _STRING: ("string_data", 1.0),
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 24), ("int32_data", 1.0)),
    **dict.fromkeys((21, 22, 23), ("int32_data", 0.5)),
    **dict.fromkeys((25, 26), ("int32_data", 0.25)),
}


def tensors(message: Any) -> Iterator[Any]:
    """Every ``TensorProto`` anywhere below a message.

    Initializers, sparse ones, attributes, subgraphs, functions, training graphs, and whatever a later ONNX
    adds: the walk follows the message's own fields and not a list of places.

    Raises:
        ModelError: a name in the message is not UTF-8.
    """
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            _check_text(value)
        if field.message_type is None:
            continue
        for child in _messages(value):
            if isinstance(child, onnx.TensorProto):
                _check_tensor_text(child)
                yield child
            else:
                yield from tensors(child)


def element_bits(code: int) -> int:
    """Bits of one element of a ``TensorProto.DataType``; 0 for a type without a fixed size."""
    return _BITS.get(code, 0)


def element_count(tensor: Any) -> int:
    """Product of a tensor's dims; raises :class:`ModelError` when one is negative."""
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"tensor '{tensor.name}' has a negative dim", got=list(tensor.dims), expected="dims >= 0")
    return math.prod(tensor.dims)


def byte_count(tensor: Any) -> int:
    """Bytes a tensor needs for its type and dims; raises :class:`ModelError` for a type of no fixed size."""
    bits = element_bits(tensor.data_type)
    if not bits:
        raise ModelError(f"tensor '{tensor.name}' has an element type that cannot be read", got=type_name(tensor))
    return (element_count(tensor) * bits + 7) // 8


def stored_bytes(tensor: Any) -> int:
    """Bytes of a tensor as it is stored; strings count their characters."""
    return sum(map(len, tensor.string_data)) if tensor.data_type == _STRING else byte_count(tensor)


def type_name(tensor: Any) -> str:
    """The ONNX name of a tensor's element type."""
    names = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return str(names.get(tensor.data_type, f"type number {tensor.data_type}"))


def check_tensor(tensor: Any) -> None:
    """Raise :class:`ModelError` unless the data inside the model is as long as type and dims say.

    A runtime that trusts a wrong length reads past the end of the data.
    """
    if tensor.HasField("segment"):
        raise ModelError(f"tensor '{tensor.name}' is split into segments", hint="export the model anew")
    if tensor.HasField("raw_data") and tensor.data_type != _STRING:
        got, expected, unit = len(tensor.raw_data), byte_count(tensor), "bytes"
    else:
        field, ratio = _FIELDS.get(tensor.data_type, ("", 0.0))
        if not field:
            byte_count(tensor)
        got, expected, unit = (
            len(getattr(tensor, field)),
            math.ceil(element_count(tensor) * ratio),
            f"in {field}",
        )
    if got != expected:
        raise ModelError(
            f"tensor '{tensor.name}' has the wrong amount of data",
            got=f"{got} {unit}",
            expected=f"{expected} for {type_name(tensor)}{list(tensor.dims)}",
        )


def check_model(model: Any) -> None:
    """Raise :class:`ModelError` unless versions, operators and value names make sense.

    Nodes may be out of order and names given twice: those are repaired later.
    """
    _check_versions(model)
    functions = {(function.domain, function.name): function for function in model.functions}
    opsets = _opsets(model.opset_import)
    _check_graph(model.graph, opsets, functions, frozenset())
    for function in model.functions:
        known = frozenset(function.input) | _produced(function.node)
        for node in function.node:
            _check_node(node, _opsets(function.opset_import) or opsets, functions, known)


def default_opset(model: Any) -> int:
    """Version of the default operator set that the model imports; 0 when it imports none."""
    return _opsets(model.opset_import).get("", 0)


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(model: Any) -> Iterator[Any]:
    """Every node of the graph, its subgraphs, and the model's functions."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        yield from _with_inner(nodes)


def label(node: Any) -> str:
    """How messages name a node: its own name, or that of the value it makes, and its operator."""
    return f"'{node.name or next(iter(node.output), '')}' ({node.op_type})"


def _with_inner(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _with_inner(graph.node)


def _check_versions(model: Any) -> None:
    if not model.graph.output:
        raise ModelError("the model's graph has no output", hint="export the model anew")
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            "the model's IR version is not supported",
            got=model.ir_version,
            expected=f"3 to {onnx.IR_VERSION}",
            hint=_newer(model.ir_version > onnx.IR_VERSION),
        )
    opsets = _opsets(model.opset_import)
    if not opsets:
        raise ModelError("the model imports no operator set", hint="the file may be cut short: copy it again")
    newest = onnx.defs.onnx_opset_version()
    if "" in opsets and not 1 <= opsets[""] <= newest:
        raise ModelError(
            "the model's opset is not supported",
            got=opsets[""],
            expected=f"1 to {newest}",
            hint=_newer(opsets[""] > newest),
        )


def _check_graph(graph: Any, opsets: dict[str, int], functions: Any, outer: frozenset[str]) -> None:
    known = outer | _produced(graph.node) | {value.name for value in graph.input}
    known |= {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        _check_node(node, opsets, functions, known)
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"nothing produces the output '{value.name}'", hint="export the model anew")


def _check_node(node: Any, opsets: dict[str, int], functions: Any, known: frozenset[str]) -> None:
    domain = _domain(node.domain)
    if (node.domain, node.op_type) not in functions and domain not in RUNTIME_DOMAINS:
        _check_operator(node, domain, opsets)
    unknown = next((name for name in node.input if name and name not in known), None)
    if unknown is not None:
        close = nearest(unknown, tuple(known))
        raise ModelError(
            f"node {label(node)} reads '{unknown}', which nothing produces",
            hint=f"did you mean '{close}'?" if close else None,
        )
    for graph in subgraphs(node):
        _check_graph(graph, opsets, functions, known)


def _check_operator(node: Any, domain: str, opsets: dict[str, int]) -> None:
    if domain not in _domains():
        raise ModelError(
            f"unknown operator '{node.op_type}' at node {label(node)}",
            got=f"domain '{domain}'",
            expected=", ".join(sorted(_domains() | RUNTIME_DOMAINS)),
            hint="export the model without custom operators",
        )
    shown = domain or "ai.onnx"
    if domain not in opsets:
        raise ModelError(f"node {label(node)} is of operator set '{shown}', which the model does not import")
    schema = _schema(node.op_type, opsets[domain], domain)
    if schema is not None:
        _check_against(schema, node)
    elif domain or node.op_type not in _RUNTIME_OPS:
        raise _unknown_operator(node, shown, domain, opsets[domain])


def _unknown_operator(node: Any, shown: str, domain: str, version: int) -> ModelError:
    newer = _schema(node.op_type, 10**6, domain)
    if newer is not None:
        first = _first_version(node.op_type, domain)
        hint = f"'{node.op_type}' entered {shown} at opset {first}: export at that opset"
    else:
        close = nearest(node.op_type, _op_names(domain))
        hint = f"did you mean '{close}'?" if close else "export the model without custom operators"
    return ModelError(
        f"unknown operator '{node.op_type}' at node {label(node)}",
        expected=f"an operator of {shown} {version}",
        hint=hint,
    )


def _check_against(schema: Any, node: Any) -> None:
    """Counts of inputs and outputs and the required attributes: what inference code may rely on."""
    for what, got, low, high in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not low <= got <= high:
            expected = str(low) if low == high else f"{low} or more" if high > 10**6 else f"{low} to {high}"
            raise ModelError(f"node {label(node)} has the wrong number of {what}", got=got, expected=expected)
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, declared in schema.attributes.items():
        if declared.required and name not in given:
            raise ModelError(f"node {label(node)} lacks the attribute '{name}'", hint="export the model anew")
        if name in given and given[name].type not in {0, declared.type.value}:
            raise ModelError(
                f"attribute '{name}' of node {label(node)} has the wrong type",
                got=given[name].type,
                expected=declared.type.name,
            )


def _check_text(value: Any) -> None:
    """ONNX's messages are of protobuf's version 2, where a string that is not UTF-8 parses, and comes as bytes."""
    for text in [value] if isinstance(value, bytes) else [] if isinstance(value, str) else value:
        if isinstance(text, bytes):
            raise ModelError("the model holds a name that is not UTF-8", got=text[:100])


def _check_tensor_text(tensor: Any) -> None:
    """A tensor's own fields are not listed, because that would copy its data."""
    _check_text([tensor.name, tensor.doc_string])
    for entry in (*tensor.external_data, *tensor.metadata_props):
        _check_text([entry.key, entry.value])


def _messages(value: Any) -> Iterator[Any]:
    """A field's messages: its own when it is single, its elements when it is repeated."""
    if hasattr(value, "ListFields"):
        yield value
    else:
        yield from value


def _produced(nodes: Any) -> frozenset[str]:
    return frozenset(name for node in nodes for name in node.output)


def _opsets(imports: Any) -> dict[str, int]:
    return {_domain(entry.domain): entry.version for entry in imports}


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _newer(is_newer: bool) -> str:
    return "pip install --upgrade onnx" if is_newer else "export the model anew"


@cache
def _domains() -> frozenset[str]:
    return frozenset(schema.domain for schema in onnx.defs.get_all_schemas())


@cache
def _op_names(domain: str) -> tuple[str, ...]:
    return tuple(sorted(schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == domain))


@cache
def _first_version(op_type: str, domain: str) -> int:
    history = onnx.defs.get_all_schemas_with_history()
    same = [schema for schema in history if (schema.name, schema.domain) == (op_type, domain)]
    return min(int(schema.since_version) for schema in same)


@cache
def _schema(op_type: str, version: int, domain: str) -> Any | None:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a version beyond 32 bits
        return None
