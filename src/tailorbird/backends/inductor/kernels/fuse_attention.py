"""Attention over one packed tensor of queries, keys and values, with one number a key as its mask."""

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.kernels import operators
from tailorbird.backends.inductor.restructure.editing import (
    arguments,
    call_before,
    calls,
    dtype_of,
    fixed_shape,
    only_user,
    operator_of,
    take_place,
    torch,
)


def fuse_attention(graph_module: Any) -> int:
    """Scaled dot-product attention whose inputs are slices of one tensor, and whose heads are joined again after it.

    Its mask must be one number for each key of a row: what differs by query or head is left alone.
    """
    count = 0
    for node in calls(graph_module.graph, "aten::scaled_dot_product_attention"):
        given = arguments(node)
        parts = [_part(given[name]) for name in ("query", "key", "value")]
        joined = _joined(node)
        if joined is None or None in parts or not _plain(given) or len({part[0] for part in parts if part}) != 1:
            continue
        batch, heads, length, width = fixed_shape(given["query"]) or (0, 0, 0, 0)
        found, keys = _keys(given["attn_mask"], batch, length)
        if not found or fixed_shape(joined) != (batch, length, heads * width):
            continue
        scale = width**-0.5 if given["scale"] is None else float(given["scale"])
        offsets = [part[1] for part in parts if part]
        new = call_before(joined, operators.attention, parts[0][0], keys, heads, width, *offsets, scale)  # type: ignore[index]
        _erase(joined, new, node)
        count += 1
    return count


def _erase(joined: Any, new: Any, attention: Any) -> None:
    """Put the fused operator in place; attention must go by hand, for PyTorch counts it as random."""
    swapped = joined.args[0]
    take_place(joined, new)
    for node in (swapped, attention):
        node.graph.erase_node(node)


def _plain(given: dict[str, Any]) -> bool:
    shapes = {fixed_shape(given[name]) for name in ("query", "key", "value")}
    extras = given["dropout_p"] or given["is_causal"] or given.get("enable_gqa")
    return len(shapes) == 1 and None not in shapes and not extras


def _part(node: Any) -> tuple[Any, int] | None:
    """The packed tensor and the offset that [batch, heads, length, width] was cut from."""
    if operator_of(node) == "aten::transpose":
        swapped = {dim % 4 for dim in node.args[1:]} == {1, 2}
    else:
        swapped = operator_of(node) == "aten::permute" and list(node.args[1]) == [0, 2, 1, 3]
    source = node.args[0] if swapped else None
    if source is None or operator_of(source) != "aten::reshape":
        return None
    return _slice(source.args[0], fixed_shape(source))


def _slice(node: Any, cut: tuple[int, ...] | None) -> tuple[Any, int] | None:
    """The tensor and offset of a slice of the last dim whose heads are cut as [batch, length, heads, width]."""
    shape = fixed_shape(node)
    if operator_of(node) != "aten::slice" or shape is None or cut is None or len(cut) != 4 or len(shape) != 3:
        return None
    given = arguments(node)
    last = given["dim"] in {-1, 2} and given["step"] == 1
    whole, start = fixed_shape(given["self"]), given["start"] or 0
    if whole is None:
        return None
    if start < 0:
        start += whole[-1]
    return (given["self"], start) if last and shape == (*cut[:2], cut[2] * cut[3]) else None


def _joined(node: Any) -> Any:
    """The node in which heads lie side by side again, when nothing else looks at them."""
    swapped = only_user(node)
    if swapped is None or operator_of(swapped) not in {"aten::transpose", "aten::permute"}:
        return None
    dims = swapped.args[1:] if operator_of(swapped) == "aten::transpose" else swapped.args[1]
    if {dim % 4 for dim in dims} != {1, 2} and list(dims) != [0, 2, 1, 3]:
        return None
    joined = only_user(swapped)
    return joined if joined is not None and operator_of(joined) == "aten::reshape" else None


def _keys(mask: Any, batch: int, length: int) -> tuple[bool, Any]:
    """Whether a mask is one number a key, and the node of shape [batch, length] that holds it; None where no mask is.

    A truth value made of a whole number is read from the number: it counts where it is not zero, as ``to(bool)`` says.
    """
    if mask is None:
        return True, None
    if fixed_shape(mask) != (batch, 1, 1, length):
        return False, None
    node = mask
    while _only_reshapes(node) or _makes_truth(node):
        node = node.args[0]
        if fixed_shape(node) == (batch, length) and not _makes_truth(node):
            return True, node
    return True, call_before(mask.next, torch().ops.aten.reshape.default, mask, [batch, length])


def _only_reshapes(node: Any) -> bool:
    return operator_of(node) in {"aten::reshape", "aten::unsqueeze", "aten::view"}


def _makes_truth(node: Any) -> bool:
    """Whether a node says of whole numbers which are not zero."""
    if not operator_of(node).startswith(("aten::to", "aten::_to_copy")) or dtype_of(node) != torch().bool:
        return False
    source = dtype_of(node.args[0])
    return source is not None and not source.is_floating_point
