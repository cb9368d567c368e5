"""Floating-point operations and bytes moved of a model at given input shapes.

What counts: one operation for each output element, and two for each multiply-add, unless the rule says otherwise
(:mod:`tailorbird.builder.graph.flop_rules`). Integer arithmetic counts the same. Bytes moved is what the nodes read and
write when nothing fuses and every value crosses memory once in and once out of each node, weights included; nodes
that only rename or reshape a value move nothing. A runtime that fuses moves less, one that spills caches more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import onnx

from tailorbird.builder.graph.flop_rules import UnknownCost, bytes_of_node, flops_of_node
from tailorbird.builder.graph.shapes import bound_model, known_values
from tailorbird.builder.sources.graph_check import label
from tailorbird.domain.signature import Shape, Shapes


class OperatorCost(msgspec.Struct, frozen=True):
    """What all nodes of one operator cost together."""

    operator: str
    nodes: int
    flops: int
    bytes_moved: int


class FlopsReport(msgspec.Struct, frozen=True):
    """The cost of one run."""

    shapes: dict[str, Shape]
    flops: int
    bytes_moved: int
    nodes: int
    unknown: tuple[str, ...]
    """Nodes that are in neither total: a shape could not be inferred, or no rule is known. ``'name' (Op): why``."""
    operators: tuple[OperatorCost, ...]
    """By operator, the most expensive first."""

    @property
    def unknown_share(self) -> float:
        """Share of the nodes that is not counted, 0 to 1."""
        return len(self.unknown) / self.nodes if self.nodes else 0.0

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved: low means that memory, not arithmetic, sets the speed."""
        return self.flops / self.bytes_moved if self.bytes_moved else 0.0


def count_flops(model: onnx.ModelProto, shapes: Shapes) -> FlopsReport:
    """Count what one run costs.

    Args:
        model: a model as :func:`tailorbird.builder.sources.onnx_file.read_model` gives it; it is not changed.
        shapes: the shape of every input, by name.

    Raises:
        InputError: the shapes contradict the signature.
        ModelError: ONNX shape inference refuses the model.
    """
    graph = bound_model(model, shapes).graph
    values = known_values(graph)
    costs: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    unknown = []
    for node, flops, moved, why in _costs(graph, values):
        if why:
            unknown.append(f"{label(node)}: {why}")
        else:
            for index, amount in enumerate((1, flops, moved)):
                costs[operator_name(node)][index] += amount
    operators = [OperatorCost(name, *amounts) for name, amounts in costs.items()]
    operators.sort(key=lambda cost: (-cost.flops, -cost.bytes_moved, cost.operator))
    return FlopsReport(
        shapes=dict(shapes),
        flops=sum(cost.flops for cost in operators),
        bytes_moved=sum(cost.bytes_moved for cost in operators),
        nodes=len(graph.node),
        unknown=tuple(unknown),
        operators=tuple(operators),
    )


def operator_name(node: Any) -> str:
    """``Conv``, or with its domain where that is not the default one: ``com.microsoft.FusedConv``."""
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"


def _costs(graph: Any, values: dict[str, Any]) -> Iterator[tuple[Any, int, int, str]]:
    """Each node with its FLOPs, its bytes, and the reason when they cannot be known."""
    for node in graph.node:
        missing = [name for name in (*node.input, *node.output) if name and name not in values]
        if missing:
            yield node, 0, 0, f"the shape of '{missing[0]}' is not known"
            continue
        try:
            yield node, flops_of_node(node, values), bytes_of_node(node, values), ""
        except UnknownCost as cause:
            yield node, 0, 0, str(cause)
        except (ArithmeticError, LookupError, ValueError):
            yield node, 0, 0, "its inputs do not fit the operator"
