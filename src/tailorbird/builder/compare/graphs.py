"""Which node of one graph is which of another, though names and weights may have changed.

Nodes are paired by the surest sign first: equal weights, then what they read, then name, then order. What is left
over was added or removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from difflib import SequenceMatcher
from itertools import takewhile

import msgspec

from tailorbird.domain.outline import Outline, OutlineNode

Key = Callable[[OutlineNode], object]

_MOST_ORDERED = 300
"""Nodes left over on either side above which order is not looked at: it takes time in their product."""


class GraphChange(msgspec.Struct, frozen=True):
    """How graph B differs from graph A; names of removed nodes are A's, all others B's."""

    twins: dict[str, str]
    """Name in A of every node of B that A has, too."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Another operator, attribute, or shape of a weight."""
    retrained: tuple[str, ...] = ()
    """Equal but for the values of weights."""
    rewired: tuple[str, ...] = ()
    """Equal, and reading from another node."""
    operators: dict[str, str] = {}
    """Operator of every node named above, by its name."""

    @property
    def is_structural(self) -> bool:
        """Whether more than weights changed."""
        return bool(self.added or self.removed or self.changed or self.rewired)


def changes(a: Outline, b: Outline) -> GraphChange:
    """Pair the nodes of two outlines and tell what changed."""
    twins = _Pairing(a, b).twins()
    old = {node.name: node for node in a.nodes}
    pairs = [(old[twins[node.name]], node) for node in b.nodes if node.name in twins]
    found = set(twins.values())
    return GraphChange(
        twins=twins,
        added=tuple(node.name for node in b.nodes if node.name not in twins),
        removed=tuple(node.name for node in a.nodes if node.name not in found),
        changed=tuple(new.name for was, new in pairs if was.form != new.form),
        retrained=tuple(new.name for was, new in pairs if was.form == new.form and was.weights != new.weights),
        rewired=tuple(new.name for was, new in pairs if was.form == new.form and _rewired(was, new, twins)),
        operators={node.name: node.op for node in (*a.nodes, *b.nodes)},
    )


def _rewired(was: OutlineNode, new: OutlineNode, twins: Mapping[str, str]) -> bool:
    """Whether a node reads from another node that both graphs have; reading an added one is told by that one."""
    read = tuple(twins.get(name, name) for name in new.inputs)
    known = set(twins.values())
    return len(read) == len(was.inputs) and any(
        mine != theirs and mine in known and theirs in known for mine, theirs in zip(read, was.inputs, strict=True)
    )


class _Pairing:
    """Pairs found so far, from the surest sign to the weakest."""

    def __init__(self, a: Outline, b: Outline) -> None:
        self._a, self._b = a.nodes, b.nodes
        self._twins: dict[str, str] = {}
        self._taken: set[str] = set()

    def twins(self) -> dict[str, str]:
        """Name in A by name in B."""
        self._by_weights()
        self._by_inputs()
        self._by_name(lambda node: (node.name, node.form))
        self._by_order()
        self._by_name(lambda node: (node.name, node.op))
        return self._twins

    def _pair(self, old: OutlineNode, new: OutlineNode) -> None:
        self._twins[new.name] = old.name
        self._taken.add(old.name)

    def _left(self) -> tuple[list[OutlineNode], list[OutlineNode]]:
        return [node for node in self._a if node.name not in self._taken], [
            node for node in self._b if node.name not in self._twins
        ]

    def _by_weights(self) -> None:
        """Equal values of weights; among several of them the same name first, then order."""
        old = _grouped((node for node in self._a if node.weights), lambda node: (node.form, node.weights))
        new = _grouped((node for node in self._b if node.weights), lambda node: (node.form, node.weights))
        for key, mine in new.items():
            theirs = old.get(key, [])
            named = {node.name: node for node in theirs}
            for node in mine:
                if node.name in named:
                    self._pair(named[node.name], node)
            rest = (node for node in theirs if node.name not in self._taken)
            for node in mine:
                if node.name not in self._twins and (twin := next(rest, None)) is not None:
                    self._pair(twin, node)

    def _by_inputs(self) -> None:
        """Equal form, reading from the same nodes: what stands between weights."""
        own = {node.name for node in self._b}
        waiting = _grouped(self._left()[0], lambda node: (node.form, node.weights, node.inputs))
        for node in self._b:
            if node.name in self._twins:
                continue
            key = (node.form, node.weights, tuple(self._read(name, own) for name in node.inputs))
            found = [twin for twin in waiting.get(key, ()) if twin.name not in self._taken]
            if found:
                self._pair(next((twin for twin in found if twin.name == node.name), found[0]), node)

    def _read(self, name: str, own: set[str]) -> str | None:
        """Name in A of what is read: a twin, an input of the graph, or None for a node that A is not known to have."""
        return self._twins.get(name, None if name in own else name)

    def _by_name(self, key: Key) -> None:
        old, new = self._left()
        known = {key(node): node for node in old}
        for node in new:
            if (twin := known.get(key(node))) is not None:
                self._pair(twin, node)

    def _between_equal_ends(
        self, old: list[OutlineNode], new: list[OutlineNode]
    ) -> tuple[list[OutlineNode], list[OutlineNode]]:
        """Pair what begins and what ends alike; the rest of both."""
        head = _equal(zip(old, new, strict=False))
        old, new = old[len(head) :], new[len(head) :]
        tail = _equal(zip(reversed(old), reversed(new), strict=False))
        for was, now in (*head, *tail):
            self._pair(was, now)
        return old[: len(old) - len(tail)], new[: len(new) - len(tail)]

    def _by_order(self) -> None:
        """The longest runs of equal forms: a model that was renamed and retrained."""
        old, new = self._between_equal_ends(*self._left())
        if max(len(old), len(new)) > _MOST_ORDERED:
            return
        matcher = SequenceMatcher(None, [node.form for node in old], [node.form for node in new], autojunk=False)
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                self._pair(old[block.a + offset], new[block.b + offset])


def _equal(pairs: Iterable[tuple[OutlineNode, OutlineNode]]) -> list[tuple[OutlineNode, OutlineNode]]:
    """The pairs before the first of two forms."""
    return list(takewhile(lambda pair: pair[0].form == pair[1].form, pairs))


def _grouped(nodes: Iterable[OutlineNode], key: Key) -> dict[object, list[OutlineNode]]:
    found: dict[object, list[OutlineNode]] = defaultdict(list)
    for node in nodes:
        found[key(node)].append(node)
    return found
