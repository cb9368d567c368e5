"""Linear layers of one input become one: the queries, keys and values of attention are a single product."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tailorbird.backends.inductor.restructure.editing import (
    add_constant,
    arguments,
    call_before,
    calls,
    constant,
    take_place,
    torch,
)


def join_linears(graph_module: Any) -> int:
    """Stack the weights of linear layers that read the same tensor; each then takes its slice of the product.

    Every output element is the same sum of the same products as before.

    Returns:
        How many products were saved.
    """
    families: dict[Any, list[Any]] = defaultdict(list)
    for node in calls(graph_module.graph, "aten::linear"):
        given = arguments(node)
        parts = [constant(graph_module, part) for part in (given["weight"], given["bias"])]
        if parts[0] is not None and (given["bias"] is None) == (parts[1] is None):
            families[given["input"], parts[0].dtype, parts[1] is None].append(node)
    joined = [family for family in families.values() if len(family) > 1]
    for family in joined:
        _join(graph_module, family)
    return sum(len(family) - 1 for family in joined)


def _join(graph_module: Any, family: list[Any]) -> None:
    first = family[0]
    given = [arguments(node) for node in family]
    weights = [constant(graph_module, one["weight"]) for one in given]
    weight = add_constant(graph_module, first, "joined_weight", torch().cat(weights))
    biases = [constant(graph_module, one["bias"]) for one in given]
    has_bias = biases[0] is not None
    bias = add_constant(graph_module, first, "joined_bias", torch().cat(biases)) if has_bias else None
    aten = torch().ops.aten
    whole = call_before(first, aten.linear.default, given[0]["input"], weight, bias)
    _note(whole, first, weight)
    start = 0
    for node, one in zip(family, weights, strict=True):
        part = call_before(node, aten.slice.Tensor, whole, -1, start, start + len(one))
        start += len(one)
        take_place(node, part)


def _note(whole: Any, first: Any, weight: Any) -> None:
    """Record the value of the joined product, whose last dim alone is new."""
    value = first.meta.get("val")
    if value is not None:
        whole.meta["val"] = value.new_empty((*value.shape[:-1], weight.meta["val"].shape[0]))
