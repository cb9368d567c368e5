"""A graph for one set of shapes: dims become numbers, and what no input reaches is computed now."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from tailorbird.backends.inductor.restructure.editing import (
    add_constant,
    constant,
    fixed_shape,
    only_user,
    operator_of,
    replace,
    take_place,
    tidy,
    torch,
)

_RANDOM = frozenset({"aten::rand", "aten::randn", "aten::rand_like", "aten::randn_like", "aten::bernoulli"})
_LARGEST = 1 << 24
"""Elements of the largest constant that is computed ahead: 32 MiB in FP16."""


def record_shapes(graph_module: Any, examples: Sequence[Any]) -> None:
    """Run the graph on tensors without data, and note what each node gives out, numbers too, at the node."""
    mode = import_module("torch._subclasses.fake_tensor").FakeTensorMode(allow_non_fake_inputs=True)

    class Recorder(torch().fx.Interpreter):  # type: ignore[misc]
        def run_node(self, node: Any) -> Any:
            node.meta["val"] = super().run_node(node)
            return node.meta["val"]

    with mode, torch().no_grad():
        Recorder(graph_module).run(*(mode.from_tensor(example) for example in examples))


def specialise(graph_module: Any, examples: Sequence[Any]) -> Any:
    """Fix every dim to that of the examples and fold what follows.

    Args:
        graph_module: a flat graph; it is changed.
        examples: one tensor for each input.

    Returns:
        The same module. It is right for inputs of these shapes only.
    """
    record_shapes(graph_module, examples)
    _numbers_for_dims(graph_module)
    _fold_constants(graph_module)
    record_shapes(tidy(graph_module), examples)
    while _shrink_constants(graph_module) + _join_constants(graph_module):
        record_shapes(tidy(graph_module), examples)
    return tidy(graph_module)


def _numbers_for_dims(graph_module: Any) -> None:
    """Write the numbers that sizes came out as where nodes computed them."""
    for node in list(graph_module.graph.nodes):
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, int | float | bool):
            continue
        for user in list(node.users):
            user.args = _with_number(user.args, node, value)
            user.kwargs = _with_number(user.kwargs, node, value)


def _with_number(tree: Any, node: Any, value: float) -> Any:
    return torch().fx.map_arg(tree, lambda each: value if each is node else each)


def _fold_constants(graph_module: Any) -> None:
    """Compute what depends on weights and numbers alone; only what an input's path needs is kept."""
    known: dict[Any, Any] = {}
    for node in list(graph_module.graph.nodes):
        value = constant(graph_module, node)
        if value is None and _foldable(node, known):
            arguments = torch().fx.map_arg((node.args, dict(node.kwargs)), lambda each: known[each])
            with torch().no_grad():
                value = node.target(*arguments[0], **arguments[1])
        if isinstance(value, torch().Tensor):
            known[node] = value
    for node, value in known.items():
        if node.op != "get_attr" and any(user not in known for user in node.users):
            take_place(node, add_constant(graph_module, node, "folded", value.contiguous()))


def _foldable(node: Any, known: dict[Any, Any]) -> bool:
    kind = operator_of(node)
    if kind == "" or kind in _RANDOM or node.target._schema.is_mutable:
        return False
    shape = fixed_shape(node)
    if shape is None or torch().Size(shape).numel() > _LARGEST:
        return False
    return all(source in known for source in node.all_input_nodes)


def _shrink_constants(graph_module: Any) -> int:
    """Keep one of equal rows in constants that are only added or multiplied: broadcasting repeats it for nothing."""
    count = 0
    for node in list(graph_module.graph.nodes):
        value = constant(graph_module, node)
        if value is None or value.dim() == 0 or len(value) < 2 or not all(_broadcasts(u, node) for u in node.users):
            continue
        if bool((value == value[:1]).all()):
            take_place(node, add_constant(graph_module, node, "row", value[:1]))
            count += 1
    return count


def _broadcasts(user: Any, node: Any) -> bool:
    """Whether a user is a sum or product whose shape the other operand has alone."""
    if operator_of(user) not in {"aten::add", "aten::mul"} or len(user.all_input_nodes) != 2:
        return False
    other = next(source for source in user.all_input_nodes if source is not node)
    return fixed_shape(other) is not None and fixed_shape(other) == fixed_shape(user)


def _join_constants(graph_module: Any) -> int:
    """(x + a) + b becomes x + (a + b) where a and b are constants; sums are rounded once less."""
    count = 0
    for outer in list(graph_module.graph.nodes):
        inner = _sum_with_constant(graph_module, outer)
        if inner is None or only_user(inner[0]) is not outer or _sum_with_constant(graph_module, inner[0]) is None:
            continue
        source, first = _sum_with_constant(graph_module, inner[0]) or (None, None)
        total = add_constant(graph_module, outer, "sum", constant(graph_module, first)
                             + constant(graph_module, inner[1]))  # fmt: skip
        replace(outer, outer.target, source, total)
        count += 1
    return count


def _sum_with_constant(graph_module: Any, node: Any) -> tuple[Any, Any] | None:
    """The two operands of a plain sum of a value and a constant, the constant last."""
    if operator_of(node) != "aten::add" or len(node.args) != 2 or node.kwargs:
        return None
    for source, other in (node.args, node.args[::-1]):
        if constant(graph_module, other) is not None and operator_of(source):
            return source, other
    return None
