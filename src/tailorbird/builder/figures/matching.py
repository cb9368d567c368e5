"""Matching: which layers of two engines do the same part of the model, by the source's nodes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tailorbird.domain.layers import Layer, LayerTable


class Part(msgspec.Struct, frozen=True):
    """A part of the model, and the layers of each engine that compute it."""

    nodes: tuple[str, ...]
    """Empty for a layer that stands for no node of the source."""
    layers: tuple[tuple[Layer, ...], ...]
    """For each engine, in its execution order; none where an engine has none for it, or does not say."""

    @property
    def times(self) -> tuple[float, ...]:
        """Milliseconds in each engine."""
        return tuple(sum(layer.milliseconds for layer in layers) for layers in self.layers)


def parts_of(tables: Sequence[LayerTable]) -> list[Part]:
    """The parts of a model that no engine's layer reaches beyond, the slowest anywhere first.

    Layers that share a node are of one part: where one engine fuses what another runs one by one, the part is that of
    the fused layer.
    """
    owners: dict[str, str] = {}
    for table in tables:
        for layer in table.layers:
            for node in layer.nodes:
                _join(owners, layer.nodes[0], node)
    found: dict[str, tuple[dict[str, None], list[list[Layer]]]] = {}
    for number, table in enumerate(tables):
        for place, layer in enumerate(table.layers):
            key = _root(owners, layer.nodes[0]) if layer.nodes else f"\0{number}:{place}"
            nodes, layers = found.setdefault(key, ({}, [[] for _ in tables]))
            nodes.update(dict.fromkeys(layer.nodes))
            layers[number].append(layer)
    parts = [Part(tuple(nodes), tuple(map(tuple, layers))) for nodes, layers in found.values()]
    return sorted(parts, key=lambda part: -max(part.times))


def _root(owners: dict[str, str], node: str) -> str:
    """The node that stands for all that one is joined with."""
    path = []
    while owners.setdefault(node, node) != node:
        path.append(node)
        node = owners[node]
    owners.update(dict.fromkeys(path, node))
    return node


def _join(owners: dict[str, str], one: str, other: str) -> None:
    owners[_root(owners, other)] = _root(owners, one)
