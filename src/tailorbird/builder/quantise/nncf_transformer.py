"""Is a model a transformer? NNCF leaves other operations in float there, and smooths activations."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

_WHOLE = frozenset(
    (
        *("Attention", "LayerNormalization", "MultiHeadAttention", "RMSNormalization", "RotaryEmbedding"),
        *("SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
    )
)
_MEANS = frozenset({"ReduceMean", "ReduceSum"})
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum"})
_REACH = 8
"""Nodes between the ends of a pattern at most: scaling, masking, casts, adding epsilon."""


def is_transformer(model: onnx.ModelProto) -> bool:
    """Whether the graph has attention (a softmax between two products) or layer normalisation, whole or in parts.

    In parts, layer normalisation is the square root of a mean in whose making something was subtracted: the
    difference from the mean, or E[x]² from E[x²]. The length in a scaling to length one has no subtraction.
    """
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    return any(
        node.op_type in _WHOLE
        or (node.op_type == "Softmax" and _is_attention(node, made, graph))
        or (node.op_type == "Sqrt" and _is_deviation(node, made))
        for node in graph.node
    )


def _is_attention(node: onnx.NodeProto, made: dict[str, onnx.NodeProto], graph: onnx.GraphProto) -> bool:
    """Scores come from a product of two computed values, and go into another product."""
    fixed = {tensor.name for tensor in graph.initializer}
    before = any(above.op_type in _PRODUCTS and fixed.isdisjoint(above.input) for above in _above(node, made))
    after = any(
        below.op_type in _PRODUCTS and any(above is node for above in _above(below, made)) for below in graph.node
    )
    return before and after


def _is_deviation(node: onnx.NodeProto, made: dict[str, onnx.NodeProto]) -> bool:
    kinds = {above.op_type for above in _above(node, made)}
    return bool(kinds & _MEANS) and "Sub" in kinds


def _above(node: onnx.NodeProto, made: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes that lead to ``node`` in at most ``_REACH`` steps; none above a product with weights is looked for."""
    level, seen = [node], {id(node)}
    for _ in range(_REACH):
        level = [made[name] for one in level for name in one.input if name in made and id(made[name]) not in seen]
        level = list({id(one): one for one in level}.values())
        seen.update(map(id, level))
        yield from level
        level = [one for one in level if one.op_type not in _PRODUCTS]
