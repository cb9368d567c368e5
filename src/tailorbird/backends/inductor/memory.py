"""Whose memory a program's values lie in: what is shared must be copied, what is not its own must not be written."""

from __future__ import annotations

from typing import Any


def shared_outputs(program: Any) -> tuple[int, ...]:
    """Places of outputs whose memory is not theirs alone: inputs, constants, views of them, and repetitions."""
    nodes = {node.name: node for node in program.graph.nodes}
    given = {name for name in program.graph_signature.user_inputs if isinstance(name, str)}
    found, seen = [], set()
    for place, name in enumerate(program.graph_signature.user_outputs):
        root = _root(nodes[name])
        if root.op != "call_function" or root in seen or not _follows_from(root, given):
            found.append(place)
        seen.add(root)
    return tuple(found)


def writes(program: Any) -> list[str]:
    """Operators of an exported program that write into an input, a weight or a constant, by name."""
    return [node.name for node in program.graph.nodes if (one := _written(node)) and _root(one).op != "call_function"]


def _written(node: Any) -> Any:
    """The value that an operator overwrites; None for most."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable or not node.args:
        return None
    return node.args[0] if hasattr(node.args[0], "op") else None


def _root(node: Any) -> Any:
    """The node whose memory a value lies in: views and identities are followed back."""
    while node.op == "call_function" and _may_be_view(node):
        node = node.args[0]
    return node


def _may_be_view(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.returns or not node.args or not hasattr(node.args[0], "op"):
        return False
    return schema.returns[0].alias_info is not None


def _follows_from(node: Any, given: set[str]) -> bool:
    """Whether a value depends on any input: one that does not is a constant in the end."""
    waiting, seen = [node], set()
    while waiting:
        one = waiting.pop()
        if one.name in given:
            return True
        if one not in seen:
            seen.add(one)
            waiting += one.all_input_nodes
    return False
