"""Attention masks without what they do not need: truths that are always true, and rows that are all alike.

Programs make a mask of shape [batch, 1, queries, keys] out of one bit for each key. Attention broadcasts it, so a mask
of shape [batch, 1, 1, keys] says the same, and can be read once for each key. Needs the graph of fixed shapes.
"""

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.restructure.editing import (
    arguments,
    calls,
    constant,
    dtype_of,
    fixed_shape,
    operator_of,
    replace,
    take_place,
    torch,
)

_ATTENTION = "aten::scaled_dot_product_attention"
_AND = ("aten::__and__", "aten::logical_and", "aten::bitwise_and")


def drop_true(graph_module: Any) -> int:
    """``x and True`` is x, broadcast where the other was larger."""
    count = 0
    for node in calls(graph_module.graph, *_AND):
        for source, other in (node.args, node.args[::-1]):
            value = constant(graph_module, other)
            if value is not None and value.dtype == dtype_of(source) == torch().bool and bool(value.all()):
                _broadcast(node, source)
                count += 1
                break
    return count


def index_is_reshape(graph_module: Any) -> int:
    """Picking element [i, j] for every i and j, in order, is a reshape."""
    count = 0
    for node in calls(graph_module.graph, "aten::index"):
        source, indices = node.args
        shape, result = fixed_shape(source), fixed_shape(node)
        values = [constant(graph_module, index) for index in indices]
        if shape is None or result is None or len(values) != len(shape) or any(value is None for value in values):
            continue
        picked = torch().arange(torch().Size(shape).numel()).reshape(shape)[tuple(values)]
        if torch().equal(picked.flatten(), torch().arange(torch().Size(shape).numel())):
            replace(node, torch().ops.aten.reshape.default, source, list(result))
            count += 1
    return count


def let_attention_broadcast(graph_module: Any) -> int:
    """Attention takes a mask as it was before it was expanded; one that is true everywhere is none."""
    count = 0
    for node in calls(graph_module.graph, _ATTENTION):
        mask = arguments(node)["attn_mask"]
        value = constant(graph_module, mask)
        if value is not None and value.dtype == torch().bool and bool(value.all()):
            _set_mask(node, None)
            count += 1
        elif operator_of(mask) == "aten::expand" and _aligned(mask, mask.args[0]):
            _set_mask(node, mask.args[0])
            count += 1
    return count


def _set_mask(node: Any, mask: Any) -> None:
    given = arguments(node)
    positional = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    node.args = tuple(given[name] if name != "attn_mask" else mask for name in positional)
    node.kwargs = {name: given[name] for name in ("scale", "enable_gqa")}


def _aligned(node: Any, source: Any) -> bool:
    shape, before = fixed_shape(node), fixed_shape(source)
    return shape is not None and before is not None and len(shape) == len(before)


def _broadcast(node: Any, source: Any) -> None:
    """Put an operand in the place of an operation, expanded to the operation's shape."""
    shape = fixed_shape(node)
    if shape is None or shape == fixed_shape(source):
        take_place(node, source)
        return
    replace(node, torch().ops.aten.expand.default, source, list(shape))
