"""Large linear layers brought to FP8: E4M3 operands, FP32 sums, everything between them in 16 bits.

Norms give their result out in E4M3 with a scale for each row, found as they go. What attention and activations give
out has a fixed scale: E4M3 is a float, so that within its range a scale changes no more than which values are small.
"""

from __future__ import annotations

import operator
from typing import Any

from tailorbird.backends.inductor.kernels import operators
from tailorbird.backends.inductor.restructure.editing import (
    add_constant,
    call_before,
    constant,
    fixed_shape,
    only_user,
    replace,
    take_place,
    tidy,
    torch,
)

LEAST = 256
"""Rows, inputs and outputs below which a product is not worth it: it waits for its weights either way."""


def to_eight_bits(graph_module: Any) -> int:
    """Bring every linear layer that is large enough to E4M3.

    Args:
        graph_module: from ``fused``; it is changed.

    Returns:
        How many layers there were.
    """
    ready: dict[Any, tuple[Any, Any]] = {}
    count = 0
    for node in list(graph_module.graph.nodes):
        if _is_large(graph_module, node):
            _convert(graph_module, node, ready)
            count += 1
    graph_module.meta.setdefault("matches", {})["layers in eight bits"] = count
    tidy(graph_module)
    return count


def _is_large(graph_module: Any, node: Any) -> bool:
    if node.op != "call_function" or node.target not in {operators.linear, operators.linear_norm}:
        return False
    weight, shape = constant(graph_module, node.args[1]), fixed_shape(node)
    if weight is None or shape is None or weight.dtype == torch().float32:
        return False
    rows = torch().Size(shape[:-1]).numel()
    return min(rows, *weight.shape) >= LEAST and not any(edge % 16 for edge in weight.shape)


def _convert(graph_module: Any, node: Any, ready: dict[Any, tuple[Any, Any]]) -> None:
    source, bias = node.args[0], node.args[2]
    given, scales = _eight(source, node, ready)
    weight, columns = _weight(graph_module, node, scales is None)
    if node.target is operators.linear_norm:
        both = call_before(node, operators.linear_norm8, given, scales, weight, columns, bias, *node.args[3:])
        normed, eight, rows = (call_before(node, operator.getitem, both, place) for place in range(3))
        take_place(node, normed)
        ready[normed] = (eight, rows)
        return
    replace(node, operators.linear8, given, scales, weight, columns, bias, node.args[3], False)


def _eight(source: Any, node: Any, ready: dict[Any, tuple[Any, Any]]) -> tuple[Any, Any]:
    """An input in E4M3, and its rows' scales; None where its scale is fixed."""
    alone = only_user(source) is node
    if alone and source.target is operators.attention:
        return replace(source, operators.attention8, *source.args), None
    if alone and source.target is operators.linear8:
        source.args = (*source.args[:-1], True)
        return source, None
    if source not in ready:
        both = call_before(node, operators.rows8, source)
        ready[source] = (call_before(node, operator.getitem, both, 0), call_before(node, operator.getitem, both, 1))
    return ready[source]


def _weight(graph_module: Any, node: Any, is_fixed: bool) -> tuple[Any, Any]:
    """A weight in E4M3 with a scale for each of its rows, in which a fixed scale of the input is undone."""
    eight, scales = operators.rows8(constant(graph_module, node.args[1]))
    scales = scales / operators.FIXED if is_fixed else scales
    return add_constant(graph_module, node, "weight8", eight), add_constant(graph_module, node, "columns", scales)
