"""Layers of two engines, matched by the nodes of the source that they stand for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tailorbird.domain.layers import Layer

ONLY_B = "+"
"""Put before names of nodes that only B has, so that no node of A is taken for one of them."""


class Group(msgspec.Struct, frozen=True):
    """Layers of both sides that share nodes, directly or through one another; one side may have none."""

    nodes: tuple[str, ...]
    """In A's names; what only B has begins with ``ONLY_B``."""
    a: tuple[Layer, ...]
    b: tuple[Layer, ...]

    @property
    def change(self) -> float:
        """Milliseconds by which B's layers take longer."""
        return sum(layer.milliseconds for layer in self.b) - sum(layer.milliseconds for layer in self.a)


def match(a: Sequence[Layer], b: Sequence[Layer], twins: Mapping[str, str] | None = None) -> tuple[Group, ...]:
    """Groups in the order in which B executes them, then those that only A has.

    Args:
        a, b: layers in execution order. Those that name no nodes are matched by their own name.
        twins: name in A of each node of B; None where the graphs are not known, so that names are taken as they are.
    """
    renamed = [msgspec.structs.replace(layer, nodes=tuple(_in_a(name, twins) for name in layer.nodes)) for layer in b]
    forest = _Forest()
    nameless = {layer.name for layer in (*a, *renamed) if not layer.nodes}
    for index, layer in enumerate((*a, *renamed)):
        keys = [("node", name) for name in layer.nodes]
        keys += [("layer", layer.name)] if layer.name in nameless else []
        for key in keys:
            forest.join(("index", str(index)), key)
    return tuple(_groups(a, renamed, forest))


def _in_a(name: str, twins: Mapping[str, str] | None) -> str:
    return name if twins is None else twins.get(name, ONLY_B + name)


def _groups(a: Sequence[Layer], b: Sequence[Layer], forest: _Forest) -> Iterator[Group]:
    sides: dict[object, tuple[list[Layer], list[Layer]]] = defaultdict(lambda: ([], []))
    for number, layer in (*enumerate(b, len(a)), *enumerate(a)):
        sides[forest.root(("index", str(number)))][number >= len(a)].append(layer)
    for mine, theirs in sides.values():
        nodes = dict.fromkeys(name for layer in (*mine, *theirs) for name in layer.nodes)
        yield Group(tuple(nodes), tuple(mine), tuple(theirs))


class _Forest:
    """Connected components of keys."""

    def __init__(self) -> None:
        self._above: dict[tuple[str, str], tuple[str, str]] = {}

    def root(self, key: tuple[str, str]) -> tuple[str, str]:
        """The component's own key."""
        while (above := self._above.setdefault(key, key)) != key:
            self._above[key] = key = self._above[above]
        return key

    def join(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        """Both keys belong together."""
        self._above[self.root(one)] = self.root(other)
