"""From an exported program to a flat graph: inputs by position, weights inside, nothing written in place."""

from __future__ import annotations

from typing import Any

from tailorbird.backends.inductor.restructure.editing import arguments, constant, operator_of, take_place, tidy, torch

_WRITES = {
    "aten::add_": "add",
    "aten::sub_": "sub",
    "aten::mul_": "mul",
    "aten::div_": "div",
    "aten::relu_": "relu",
    "aten::hardtanh_": "hardtanh",
    "aten::silu_": "silu",
    "aten::gelu_": "gelu",
    "aten::sigmoid_": "sigmoid",
    "aten::tanh_": "tanh",
    "aten::masked_fill_": "masked_fill",
    "aten::clamp_": "clamp",
}
"""Operators that overwrite their first argument, and those that make a new tensor of it."""


def flattened(program: Any) -> Any:
    """The program as a graph module of its own.

    Args:
        program: a ``torch.export.ExportedProgram``.

    Returns:
        A ``GraphModule`` that takes the program's inputs one after another, in the order of its signature, and returns
        its outputs as a flat tuple. Weights are copies only where a pass changes them.
    """
    fx = torch().fx
    inner = program.module()
    graph = fx.Graph()
    graph.output(graph.graph_copy(inner.graph, {}))
    flat = fx.GraphModule(inner, graph)
    for node in list(flat.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            flat.graph.erase_node(node)
    without_writes(flat)
    return tidy(flat)


def without_writes(graph_module: Any) -> int:
    """Give operators that overwrite a tensor a tensor of their own, where nothing else can see the difference.

    Nothing can where the overwritten tensor was made by an operator (it is neither an input nor a weight), no view of
    it is taken, and those that use it later get the new tensor, which is what they would have seen.

    Returns:
        How many there were.
    """
    count = 0
    for node in list(graph_module.graph.nodes):
        name = _WRITES.get(operator_of(node))
        if name is None or not _is_own(graph_module, node.args[0]):
            continue
        overload = getattr(torch().ops.aten, name)
        target = getattr(overload, node.target._overloadname)
        _redirect_later_uses(node)
        with node.graph.inserting_before(node):
            new = node.graph.call_function(target, node.args, dict(node.kwargs))
        take_place(node, new)
        count += 1
    return count


def _is_own(graph_module: Any, node: Any) -> bool:
    """Whether a tensor is the fresh result of an operator, and no other name for it exists."""
    if operator_of(node) == "" or constant(graph_module, node) is not None or _is_view(node):
        return False
    return not any(_is_view(user) for user in node.users)


def _is_view(node: Any) -> bool:
    """Whether an operator may return (a part of) what it was given."""
    if operator_of(node) == "":
        return bool(node.op != "output")
    if operator_of(node) in _WRITES:
        return False
    returns = node.target._schema.returns
    return operator_of(node) in _MAY_ALIAS or bool(any(result.alias_info is not None for result in returns))


_MAY_ALIAS = frozenset(
    f"aten::{name}"
    for name in (
        *("reshape", "contiguous", "to", "type_as", "flatten", "dropout"),
        *("atleast_1d", "atleast_2d", "atleast_3d"),
    )
)
"""Operators that may return what they were given although their schemas do not say so."""


def _redirect_later_uses(node: Any) -> None:
    written = node.args[0]
    order = {each: place for place, each in enumerate(node.graph.nodes)}
    for user in list(written.users):
        if user is not node and order[user] > order[node]:
            user.replace_input_with(written, node)


def writes(graph_module: Any) -> list[str]:
    """Operators that still overwrite one of their arguments: passes must not move anything past them."""
    return [operator_of(node) for node in graph_module.graph.nodes
            if operator_of(node) and node.target._schema.is_mutable]  # fmt: skip


def is_inference(node: Any) -> bool:
    """Whether a node that behaves otherwise in training (dropout, batch norm) was exported for inference."""
    given = arguments(node)
    return not given.get("train", given.get("training", False))
