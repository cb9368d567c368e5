"""Reading and editing FX graphs: calls told by operator, constants by node, and nodes that take another's place."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any


def torch() -> Any:
    """PyTorch, loaded on first use."""
    return import_module("torch")


def operator_of(node: Any) -> str:
    """The operator that a node calls, without its overload (``aten::linear``); empty for any other node."""
    if getattr(node, "op", "") != "call_function":
        return ""
    name = getattr(node.target, "name", None)
    return str(name()).partition(".")[0] if callable(name) else ""


def calls(graph: Any, *operators: str) -> Iterator[Any]:
    """The nodes that call one of these operators, first to last; the graph may be edited meanwhile."""
    for node in list(graph.nodes):
        if operator_of(node) in operators:
            yield node


def arguments(node: Any) -> dict[str, Any]:
    """What an operator is called with, by the names of its schema, defaults filled in."""
    schema = node.target._schema.arguments
    found = {argument.name: argument.default_value for argument in schema}
    found |= dict(zip((argument.name for argument in schema), node.args, strict=False))
    return found | dict(node.kwargs)


def constant(graph_module: Any, node: Any) -> Any:
    """The tensor that a ``get_attr`` node stands for; None for every other node."""
    if getattr(node, "op", "") != "get_attr":
        return None
    found = operator.attrgetter(node.target)(graph_module)
    return found.detach() if isinstance(found, torch().Tensor) else None


def add_constant(graph_module: Any, before: Any, name: str, value: Any) -> Any:
    """A new constant as a node in front of another one; its name is made unique."""
    number = 0
    while hasattr(graph_module, f"{name}_{number}"):
        number += 1
    graph_module.register_buffer(f"{name}_{number}", value.detach().clone())
    with graph_module.graph.inserting_before(before):
        made = graph_module.graph.get_attr(f"{name}_{number}")
    made.meta["val"] = value
    return made


def call_before(node: Any, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A new call in front of a node."""
    with node.graph.inserting_before(node):
        return node.graph.call_function(target, args, kwargs)


def take_place(node: Any, new: Any) -> None:
    """Let a node be used wherever another one was, and remove that one."""
    if "val" not in new.meta and "val" in node.meta:
        new.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def replace(node: Any, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Put a call in a node's place."""
    new = call_before(node, target, *args, **kwargs)
    take_place(node, new)
    return new


def shape_of(node: Any) -> tuple[Any, ...] | None:
    """The shape of a node's value, as recorded; None where it is no tensor or unknown. Entries may be symbolic."""
    value = getattr(node, "meta", {}).get("val")
    return tuple(value.shape) if isinstance(value, torch().Tensor) else None


def fixed_shape(node: Any) -> tuple[int, ...] | None:
    """The shape of a node's value where every dim of it is a plain number."""
    shape = shape_of(node)
    return shape if shape is not None and all(type(dim) is int for dim in shape) else None


def dtype_of(node: Any) -> Any:
    """The element type of a node's value, as recorded; None where it is no tensor or unknown."""
    return getattr(getattr(node, "meta", {}).get("val"), "dtype", None)


def only_user(node: Any) -> Any:
    """The one node that uses this one; None where there are more, or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def tidy(graph_module: Any) -> Any:
    """Drop what nothing uses, check the graph, and make its code anew."""
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    used = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph_module.named_buffers(recurse=False) if name not in used]:
        delattr(graph_module, name)
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module
