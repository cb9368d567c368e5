"""Why one engine is slower: the change of a run, layer by layer, put down to what differs at that very layer.

A change belongs to the most specific difference that applies: the source's nodes changed there, the precision
differs there, the same nodes are fused otherwise there. What none of them explains belongs to what differs
everywhere (threads, shapes, runtime); records cannot tell several of those apart, measuring in turn can. Time
outside layers is a line of its own, and contributions always add up to the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tailorbird.builder.compare import words
from tailorbird.builder.compare.comparison import Area, Basis, Cause, Difference, LayerSide, Pair
from tailorbird.builder.compare.graphs import GraphChange
from tailorbird.builder.compare.matching import ONLY_B, Group, match
from tailorbird.domain.layers import Layer, LayerTable

EVERYWHERE = (Area.RUNTIME, Area.SHAPES, Area.THREADS, Area.INSTANCES, Area.OPTIONS, Area.VERSION, Area.DEVICE)
"""Differences that can change every layer."""

_OF_ITS_RUNTIME = frozenset({Area.OPTIONS, Area.VERSION})
"""They mean nothing across runtimes: another runtime is the cause then."""

_VAGUE = frozenset({Area.OUTSIDE, Area.UNEXPLAINED})

_DEVICE_FACTS = frozenset({"target", "cpu", "cores", "isa"})


@dataclass(frozen=True)
class Context:
    """What is known to differ."""

    differences: tuple[Difference, ...]
    graph: GraphChange | None
    same_shapes: bool = True

    @property
    def everywhere(self) -> tuple[Area, ...]:
        """Differences that can change every layer, the strongest first."""
        found = {one.area for one in self.differences if one.area is not Area.DEVICE or one.what in _DEVICE_FACTS}
        found |= set() if self.same_shapes else {Area.SHAPES}
        dropped = _OF_ITS_RUNTIME if Area.RUNTIME in found else frozenset()
        return tuple(area for area in EVERYWHERE if area in found and area not in dropped)

    @property
    def local(self) -> tuple[Area, ...]:
        """Differences that change some layers only, as far as records without layers tell."""
        found = {one.area for one in self.differences}
        graph = self.graph.is_structural if self.graph else Area.GRAPH in found
        precise = Area.PRECISION in found or Area.QUANTISATION in found
        return (*((Area.GRAPH,) if graph else ()), *((Area.PRECISION,) if precise else ()))


@dataclass(frozen=True)
class Parts:
    """The change in parts: every matched group of layers, and what lies outside layers."""

    pairs: tuple[Pair, ...]
    causes: tuple[Cause, ...]


def by_layers(a: LayerTable, b: LayerTable, milliseconds: tuple[float, float], context: Context, noise: float) -> Parts:
    """Put the change of a run down to causes, by the layers of both sides.

    Args:
        a, b: layers of both engines at the place compared.
        milliseconds: medians of a whole run. Layers were profiled at another moment, so that they are scaled to it.
        context: what differs.
        noise: milliseconds that a run may differ by though nothing changed.
    """
    mine, theirs = _scaled(a, milliseconds[0]), _scaled(b, milliseconds[1])
    groups = match(mine, theirs, context.graph.twins if context.graph else None)
    areas = _areas(groups, context)
    pairs = tuple(_pair(group, area) for group, area in zip(groups, areas, strict=True))
    outside = tuple(round(total - sum(layer.milliseconds for layer in layers), 9) + 0.0
                    for total, layers in zip(milliseconds, (mine, theirs), strict=True))  # fmt: skip
    causes = [_cause(area, [pair for pair in pairs if pair.area is area], context)
              for area in dict.fromkeys(areas)]  # fmt: skip
    causes.append(_outside(outside[0], outside[1], context))
    return Parts(pairs, ranked(causes, noise))


def by_records(change: float, context: Context) -> tuple[Cause, ...]:
    """Causes where layers were not recorded: a single difference explains all of it, several nothing for sure."""
    everywhere, local = context.everywhere, context.local
    found = [*local, *everywhere]
    if not found:
        return (Cause((Area.UNEXPLAINED,), words.UNEXPLAINED, change, Basis.NONE),)
    basis = Basis.ONLY if len(found) == 1 else Basis.NONE
    part = change if len(found) == 1 else None
    return tuple(Cause((area,), words.area_words(area, context.differences, context.graph), part, basis)
                 for area in found)  # fmt: skip


def ranked(causes: Iterable[Cause], noise: float = 0.0) -> tuple[Cause, ...]:
    """The largest contribution to either side first; what nothing measured comes last.

    What no difference explains, and what lies between layers, must exceed the noise to come before a difference.
    """
    return tuple(sorted(causes, key=lambda one: -_weight(one, noise)))


def _weight(cause: Cause, noise: float) -> float:
    weight = abs(cause.contribution or 0.0)
    return max(0.0, weight - noise) if cause.areas[0] in _VAGUE else weight


def is_precise(precision: str) -> bool:
    """Whether it is one that values are computed in, rather than counted or compared."""
    return precision.startswith(("fp", "bf")) or precision == "int8"


def _scaled(table: LayerTable, milliseconds: float) -> list[Layer]:
    """Layers at the pace of the run that is told. Together they never take longer than it: profiling costs time."""
    whole = max(table.latency, table.profiled)
    factor = milliseconds / whole if whole > 0 else 1.0
    return [msgspec.structs.replace(layer, milliseconds=layer.milliseconds * factor) for layer in table.layers]


def _areas(groups: Sequence[Group], context: Context) -> list[Area]:
    """The area of each group. Conversions name no nodes: they belong to what differs beside them."""
    touched = _touched(context.graph)
    found = [_area(group, touched, context) for group in groups]
    beside = [_conversion(index, groups, found) for index in range(len(groups))]
    rest = (context.everywhere or (Area.UNEXPLAINED,))[0]
    return [area or other or rest for area, other in zip(found, beside, strict=True)]


def _touched(graph: GraphChange | None) -> set[str]:
    """Nodes that changed, in the names that groups use."""
    if graph is None:
        return set()
    new = (graph.twins.get(name, ONLY_B + name) for name in (*graph.added, *graph.changed, *graph.rewired))
    return {*new, *graph.removed}


def _area(group: Group, touched: set[str], context: Context) -> Area | None:
    """The most specific difference at this group; None where only what differs everywhere is left."""
    if touched & set(group.nodes):
        return Area.GRAPH
    if _precision_differs(group):
        return Area.PRECISION
    wide = {Area.SHAPES, Area.RUNTIME} & set(context.everywhere)
    if _fused_otherwise(group) and not wide:  # other shapes and runtimes fuse otherwise: they are the cause
        return Area.FUSION
    return None


def _precision_differs(group: Group) -> bool:
    mine, theirs = _precisions(group.a), _precisions(group.b)
    shared = mine.keys() & theirs.keys()
    return any(mine[name] != theirs[name] and is_precise(mine[name]) and is_precise(theirs[name]) for name in shared)


def _precisions(layers: Iterable[Layer]) -> dict[str, str]:
    """Precision by node: that of the longest layer which stands for it."""
    found: dict[str, str] = {}
    for layer in sorted(layers, key=lambda one: one.milliseconds):
        found |= dict.fromkeys(layer.nodes or (layer.name,), layer.precision)
    return found


def _fused_otherwise(group: Group) -> bool:
    return {layer.nodes for layer in group.a} != {layer.nodes for layer in group.b} and bool(group.nodes)


def _conversion(index: int, groups: Sequence[Group], areas: Sequence[Area | None]) -> Area | None:
    """Of layers that one side has and that stand for no node: what differs beside them, precision before all else."""
    group = groups[index]
    if group.nodes or (group.a and group.b):
        return None
    near = {areas[at] for at in (index - 1, index + 1) if 0 <= at < len(areas)} - {None}
    everywhere_else = Area.PRECISION if Area.PRECISION in areas else None
    return next((area for area in (Area.PRECISION, Area.GRAPH, Area.FUSION) if area in near), everywhere_else)


def _pair(group: Group, area: Area) -> Pair:
    nodes = tuple(name.removeprefix(ONLY_B) for name in group.nodes)
    return Pair(nodes, _sides(group.a), _sides(group.b), group.change, area)


def _sides(layers: Iterable[Layer]) -> tuple[LayerSide, ...]:
    return tuple(LayerSide(one.name, one.kind, one.precision, one.milliseconds) for one in layers)


def _cause(area: Area, pairs: Sequence[Pair], context: Context) -> Cause:
    total = sum(pair.change for pair in pairs)
    everywhere = context.everywhere
    if area in everywhere:
        return Cause(everywhere, words.everywhere_words(everywhere, context.differences), total, Basis.LAYERS)
    if area is Area.PRECISION:
        return Cause((area,), words.precision_words(pairs), total, Basis.LAYERS)
    if area is Area.FUSION:
        return Cause((area,), words.fusion_words(pairs), total, Basis.LAYERS)
    return Cause((area,), words.area_words(area, context.differences, context.graph), total, Basis.LAYERS)


def _outside(a: float, b: float, context: Context) -> Cause:
    text = words.outside_words(a, b, context.everywhere, context.differences)
    return Cause((Area.OUTSIDE, *context.everywhere), text, b - a, Basis.LAYERS)
