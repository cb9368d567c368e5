"""What the comparison says: one clause for each cause, and the sentences on top."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tailorbird.builder.compare.comparison import Area, Basis, Cause, Difference, LatencyChange, LayerSide, Pair
from tailorbird.builder.compare.differences import named, place_words
from tailorbird.builder.compare.graphs import GraphChange

UNEXPLAINED = "nothing that was recorded differs there"
_NAMES_SHOWN = 3
_LONG = 60
_DIGEST = 19


def area_words(area: Area, differences: Iterable[Difference], graph: GraphChange | None) -> str:
    """What differs in one area."""
    if area is Area.UNEXPLAINED:
        return UNEXPLAINED
    if area is Area.GRAPH and graph is not None:
        return graph_words(graph)
    also = {Area.QUANTISATION} if area is Area.PRECISION else set()
    said = [_fact(one) for one in differences if one.area in {area, *also}]
    return ", ".join(said) or str(area)


def graph_words(graph: GraphChange) -> str:
    """Nodes added, removed and changed."""
    kinds = {
        "added": graph.added,
        "removed": graph.removed,
        "changed": graph.changed,
        "reading from others": graph.rewired,
    }
    return "; ".join(f"{what}: {named(names, graph.operators)}" for what, names in kinds.items() if names)


def weights_words(graph: GraphChange) -> str:
    """Nodes that were trained again."""
    return f"other weights in {named(graph.retrained, graph.operators)}"


def everywhere_words(areas: Sequence[Area], differences: Sequence[Difference]) -> str:
    """What differs everywhere; several areas at once cannot be told apart."""
    clauses = [area_words(area, differences, None) for area in areas]
    doubt = ": records cannot tell these apart, --measure can" if len(areas) > 1 else ""
    return "; ".join(clauses) + doubt


def precision_words(pairs: Sequence[Pair]) -> str:
    """``3 layers that ran int8 run fp32 (conv_7, conv_8, conv_9)``, for each kind of change."""
    moves: dict[tuple[str, str], list[str]] = {}
    for pair in sorted(pairs, key=lambda one: -abs(one.change)):
        if pair.a and pair.b:
            old, new = _heaviest(pair.a, pair), _heaviest(pair.b, pair)
            if old.precision != new.precision:
                moves.setdefault((old.precision, new.precision), []).append(new.name)
    if not moves:
        return f"conversions around {len(pairs)} layers"
    order = sorted(moves.items(), key=lambda one: -len(one[1]))
    return "; ".join(f"{_count(len(names), 'layer')} that ran {old} {'runs' if len(names) == 1 else 'run'} {new} "
                     f"({listed(names)})" for (old, new), names in order)  # fmt: skip


def _heaviest(layers: Sequence[LayerSide], pair: Pair) -> LayerSide:
    """The layer that computes: conversions stand beside it under the same nodes."""
    return max(layers, key=lambda one: (one.name in pair.nodes, one.milliseconds))


def fusion_words(pairs: Sequence[Pair]) -> str:
    """``the nodes of 4 layers ran as 2 layers and run as 4 (conv_1, relu_1)``."""
    before, after = (
        sum(len(side) for side in sides) for sides in zip(*((pair.a, pair.b) for pair in pairs), strict=True)
    )
    names = [name for pair in sorted(pairs, key=lambda one: -abs(one.change)) for name in pair.nodes]
    return f"{_count(len(names), 'node')} that ran as {_count(before, 'layer')} run as {after} ({listed(names)})"


def outside_words(a: float, b: float, everywhere: Sequence[Area], differences: Sequence[Difference]) -> str:
    """The run less its layers, and what differs that may change it."""
    also = f"; {everywhere_words(everywhere, differences)}" if everywhere else ""
    return f"a run less its layers takes {ms(a)} -> {ms(b)} ms{also}"


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(short, names[:_NAMES_SHOWN])) + more


def short(text: str, most: int = _LONG) -> str:
    """Long names lose their middle, digests their end."""
    if text.startswith("sha256:"):
        return text[:_DIGEST]
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


def ms(value: float) -> str:
    """Milliseconds with three significant digits."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def latency_sentence(change: LatencyChange) -> str:
    """How much slower or faster B is, and what most of it is."""
    was, now = change.a.latency.median, change.b.latency.median
    place = place_words(change.b.shapes, change.b.instances) if change.b.shapes else "the opt shape"
    times = f"{ms(was)} -> {ms(now)} ms at {place}"
    if not change.same_shapes:
        times = f"{ms(was)} ms at {place_words(change.a.shapes, change.a.instances)} -> {ms(now)} ms at {place}"
    if not change.beyond_noise:
        return f"B is as fast as A within the noise ({times}, noise {ms(change.noise)} ms)"
    ratio = now / was if now > was else was / now
    head = f"B is {ratio:.2f}x {'slower' if now > was else 'faster'} ({times})"
    return f"{head}: {top_cause(change.causes, change.change)}"


def top_cause(causes: Sequence[Cause], change: float) -> str:
    """The first cause with its share."""
    if not causes:
        return "nothing explains it"
    top = causes[0]
    if top.areas in ((Area.UNEXPLAINED,), (Area.OUTSIDE,)):
        return _unexplained(causes, change)
    if top.contribution is None:
        return f"{_possible(causes)}: which of them was not measured"
    said = f"{areas_words(top.areas)}: {top.text}"
    return f"all of it is {said}" if top.basis is Basis.ONLY else f"{share(top.contribution, change)} of it is {said}"


def _unexplained(causes: Sequence[Cause], change: float) -> str:
    """Nothing is blamed for what no difference explains; the first difference is told with its own share."""
    named_causes = [one for one in causes if one.areas[0] not in (Area.UNEXPLAINED, Area.OUTSIDE)]
    if not named_causes or named_causes[0].contribution is None:
        return "nothing that was recorded explains it"
    first = named_causes[0]
    part = share(first.contribution or 0.0, change)
    return f"nothing that was recorded explains most of it; {part} of it is {areas_words(first.areas)}: {first.text}"


def areas_words(areas: Sequence[Area]) -> str:
    """``between layers (threads)``; otherwise the areas themselves."""
    if areas[0] is Area.OUTSIDE:
        return f"{areas[0]} ({', '.join(areas[1:])} differ)" if len(areas) > 1 else str(areas[0])
    return ", ".join(areas)


def share(part: float, whole: float) -> str:
    """A part in per cent of the whole; parts of either sign may be more than all of it."""
    return f"{100 * part / whole:.0f} %" if abs(whole) > 0 else "none"


def _possible(causes: Sequence[Cause]) -> str:
    counted = Counter(", ".join(one.areas) for one in causes if one.contribution is None)
    return f"{', '.join(counted)} differ"


def _fact(one: Difference) -> str:
    return f"{one.what} {short(one.a)} -> {short(one.b)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
