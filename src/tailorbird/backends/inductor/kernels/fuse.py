"""Patterns of plain operators become fused ones: products with what follows them, norms with what precedes them.

Each pass needs a graph of fixed shapes (``restructured(..., examples=...)``) and says how much it found.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from tailorbird.backends.inductor.kernels import operators
from tailorbird.backends.inductor.kernels.fuse_attention import fuse_attention
from tailorbird.backends.inductor.kernels.fuse_convolutions import fuse_convolutions, fuse_pictures
from tailorbird.backends.inductor.restructure.editing import (
    arguments,
    call_before,
    calls,
    constant,
    fixed_shape,
    only_user,
    operator_of,
    replace,
    take_place,
    tidy,
    torch,
)

_ACTIVATIONS = {"aten::gelu": "gelu", "aten::relu": "relu", "aten::tanh": "tanh"}


def fused(graph_module: Any, without: Sequence[str] = ()) -> Any:
    """Bring a graph to fused operators where they fit.

    Args:
        graph_module: a flat graph of fixed shapes; it is changed.
        without: passes to leave out, by name.

    Returns:
        The same module, which computes the same; ``meta["matches"]`` says how much each pass found.
    """
    found = graph_module.meta.setdefault("matches", {})
    for name, apply in PASSES.items():
        if name not in without:
            found[name] = apply(graph_module)
            tidy(graph_module)
    return graph_module


def let_gelu_be_fast(graph_module: Any) -> int:
    """Let the GELU of 16-bit layers be approximate, by no more than they round off."""
    count = 0
    for node in graph_module.graph.nodes:
        if node.target in {operators.linear, operators.linear_wide} and node.args[3] == "gelu":
            weight = constant(graph_module, node.args[1])
            if weight is not None and weight.dtype != torch().float32:
                node.args = (*node.args[:3], "gelu_fast")
                count += 1
    return count


def fuse_outputs(graph_module: Any) -> int:
    """Results that leave in FP32 are written in FP32 by the kernel that makes them, not by one more."""
    count = 0
    for node in calls(graph_module.graph, "aten::to"):
        source, wide = node.args[0], node.target._overloadname == "dtype" and node.args[1] == torch().float32
        if not wide:
            continue
        if source.target is operators.linear and only_user(source) is node:
            replace(node, operators.linear_wide, *source.args)
            count += 1
        elif source.target is operators.linear_norm:
            _also_wide(node, source)
            count += 1
    return count


def _also_wide(node: Any, source: Any) -> None:
    both = call_before(source, operators.linear_norm_wide, *source.args)
    half, wide = (call_before(source, operator.getitem, both, place) for place in range(2))
    take_place(source, half)
    take_place(node, wide)


def fuse_embeddings(graph_module: Any) -> int:
    """A lookup, a constant for each position, and a layer norm."""
    count = 0
    for node in calls(graph_module.graph, "aten::layer_norm"):
        norm, total = _norm(graph_module, node), node.args[0]
        if norm is None or operator_of(total) != "aten::add" or len(total.args) != 2 or total.kwargs:
            continue
        lookup, added = total.args
        table = constant(graph_module, lookup.args[0]) if operator_of(lookup) == "aten::embedding" else None
        shape = fixed_shape(lookup)
        if table is None or shape is None or len(shape) != 3 or fixed_shape(added) != (1, *shape[1:]):
            continue
        if constant(graph_module, added) is not None:
            replace(node, operators.embed_norm, lookup.args[1], lookup.args[0], added, *norm)
            count += 1
    return count


def fuse_norms(graph_module: Any) -> int:
    """A linear layer, a residual, and the layer norm of their sum; the sum itself where others use it, too."""
    count = 0
    for node in calls(graph_module.graph, "aten::layer_norm"):
        norm, total = _norm(graph_module, node), node.args[0]
        if norm is None or operator_of(total) != "aten::add" or len(total.args) != 2 or total.kwargs:
            continue
        pair = _linear_and_residual(graph_module, total)
        if pair is not None:
            _fuse_norm(node, total, (*pair, *norm))
            count += 1
    return count


def fuse_linears(graph_module: Any) -> int:
    """A linear layer and its activation; one without an activation is taken as well."""
    count = 0
    for node in calls(graph_module.graph, "aten::linear"):
        given = _linear(graph_module, node)
        if given is None:
            continue
        user = only_user(node)
        activation = _activation(user)
        if activation:
            new = call_before(user, operators.linear, *given, activation)
            take_place(user, new)
        else:
            replace(node, operators.linear, *given, "")
        count += 1
    return count


def _fuse_norm(node: Any, total: Any, given: tuple[Any, ...]) -> None:
    if only_user(total) is node:
        replace(node, operators.linear_norm, *given)
        return
    both = call_before(total, operators.linear_sum_norm, *given)
    normed = call_before(total, operator.getitem, both, 1)
    take_place(node, normed)
    replace(total, operator.getitem, both, 0)


def _linear_and_residual(graph_module: Any, total: Any) -> tuple[Any, ...] | None:
    """Input, weight, bias and residual of a sum, the later of two linear layers counting as the product."""
    order = {node: place for place, node in enumerate(graph_module.graph.nodes)}
    for node, residual in sorted((total.args, total.args[::-1]), key=lambda pair: -order.get(pair[0], -1)):
        given = _linear(graph_module, node)
        same = fixed_shape(residual) is not None and fixed_shape(residual) == fixed_shape(node)
        if given is not None and same and only_user(node) is total:
            return (*given, residual)
    return None


def _linear(graph_module: Any, node: Any) -> tuple[Any, ...] | None:
    """Input, weight and bias of a linear layer whose weights are known."""
    if operator_of(node) != "aten::linear":
        return None
    given = arguments(node)
    weight, bias = constant(graph_module, given["weight"]), constant(graph_module, given["bias"])
    if weight is None or bias is None or weight.dim() != 2:
        return None
    return given["input"], given["weight"], given["bias"]


def _norm(graph_module: Any, node: Any) -> tuple[Any, ...] | None:
    """Scale, shift and epsilon of a layer norm over the last dim."""
    given = arguments(node)
    if len(given["normalized_shape"]) != 1 or constant(graph_module, given["weight"]) is None:
        return None
    return (given["weight"], given["bias"], given["eps"]) if constant(graph_module, given["bias"]) is not None else None


def _activation(node: Any) -> str:
    kind = _ACTIVATIONS.get(operator_of(node), "") if node is not None else ""
    return "gelu_tanh" if kind == "gelu" and arguments(node)["approximate"] == "tanh" else kind


PASSES = {
    "embeddings fused": fuse_embeddings,
    "attention fused": fuse_attention,
    "norms fused": fuse_norms,
    "linear layers fused": fuse_linears,
    "convolutions fused": fuse_convolutions,
    "pictures fused": fuse_pictures,
}
"""Passes in order: a norm takes a linear layer before an activation could."""
