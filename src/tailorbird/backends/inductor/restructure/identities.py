"""Operators that change nothing: dropout outside training, casts to the same type, reshapes to the same shape."""

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.restructure.editing import (
    arguments,
    calls,
    dtype_of,
    operator_of,
    shape_of,
    take_place,
    torch,
)
from tailorbird.backends.inductor.restructure.flatten import is_inference

_CHECKS = ("aten::_assert_tensor_metadata", "aten::_assert_async", "aten::_assert_scalar", "aten::sym_constrain_range")
_CASTS = ("aten::to", "aten::_to_copy", "aten::type_as")
_SHAPES = ("aten::reshape", "aten::view", "aten::expand", "aten::_unsafe_view", "aten::expand_as", "aten::slice")
_COPIES = ("aten::clone", "aten::contiguous", "aten::alias", "aten::detach", "aten::lift_fresh_copy")


def remove_checks(graph_module: Any) -> int:
    """Assertions about types that the signature's own checks make already."""
    count = 0
    for node in calls(graph_module.graph, *_CHECKS):
        if not node.users:
            node.graph.erase_node(node)
            count += 1
    return count


def reshape_instead_of_view(graph_module: Any) -> int:
    """Let views be reshapes, which are views where they can be: passes may then change how a tensor is laid out."""
    count = 0
    for node in calls(graph_module.graph, "aten::view", "aten::_unsafe_view"):
        if node.target._overloadname == "default":
            node.target = torch().ops.aten.reshape.default
            count += 1
    return count


def remove_identities(graph_module: Any) -> int:
    """Everything whose result equals its first argument, element by element.

    Copies go, too: a graph in which nothing is overwritten cannot tell a copy from its original.
    """
    count = 0
    for node in calls(graph_module.graph, "aten::dropout", "aten::native_dropout", *_CASTS, *_SHAPES, *_COPIES):
        if _changes_nothing(node):
            take_place(node, node.args[0])
            count += 1
    return count


def _changes_nothing(node: Any) -> bool:
    kind, source = operator_of(node), node.args[0]
    if kind == "aten::dropout":
        return is_inference(node)
    if kind in _CASTS:
        return _same_type(node, source)
    if kind in _SHAPES:  # a view in another type has the same shape, and other numbers
        return _same_shape(node, source) and dtype_of(node) == dtype_of(source)
    return kind in _COPIES and not _asks_for_a_layout(node)


def _same_type(node: Any, source: Any) -> bool:
    known = dtype_of(node)
    device = getattr(node.meta.get("val"), "device", None)
    same_device = device == getattr(source.meta.get("val"), "device", None)
    return known is not None and known == dtype_of(source) and same_device and not _asks_for_a_layout(node)


def _same_shape(node: Any, source: Any) -> bool:
    shape, before = shape_of(node), shape_of(source)
    return shape is not None and before is not None and list(map(str, shape)) == list(map(str, before))


def _asks_for_a_layout(node: Any) -> bool:
    """Channels-last asked for by the program; plain contiguous and "as it was" are no wish."""
    wish = str(arguments(node).get("memory_format"))
    return "channels_last" in wish
