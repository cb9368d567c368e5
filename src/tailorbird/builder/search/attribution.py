"""Attribution: from what runtimes say of their layers to nodes of the normalised graph.

A runtime knows the engine's graph, where quantisers have added nodes and renamed some. ONNX Runtime's calls a node that
it makes an operator on integers ``NAME_quant``, and what it gives out ``VALUE_quantized``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tailorbird.domain.layers import Layer


def attributed(layers: Sequence[Layer], graph_nodes: Sequence[Any]) -> tuple[Layer, ...]:
    """The layers with their ``nodes`` as names of a graph's nodes, in the graph's order.

    A node belongs to the layers that name it; where none does, to those that name what it gives out.

    Args:
        layers: as :meth:`tailorbird.backends.base.Session.profile` gives them.
        graph_nodes: of the normalised main graph; every one has a name of its own.
    """
    said: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        for name in layer.nodes:
            said.setdefault(name, []).append(number)
    said = _before_quantising(said) | said
    parts: list[list[str]] = [[] for _ in layers]
    for node in graph_nodes:
        values = (number for value in node.output for number in said.get(value, ()))
        for number in said.get(node.name) or values:
            parts[number].append(node.name)
    return tuple(msgspec.structs.replace(layer, nodes=tuple(dict.fromkeys(part)))
                 for layer, part in zip(layers, parts, strict=True))  # fmt: skip


_QUANTISED = ("_quantized", "_quant")


def _before_quantising(said: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Names as they were before a quantiser marked them; what is called so itself is another matter."""
    found: dict[str, list[int]] = {}
    for name, numbers in said.items():
        mark = next(filter(name.endswith, _QUANTISED), "")
        if mark:
            found.setdefault(name.removesuffix(mark), []).extend(numbers)
    return found
