"""Precisions: what every executed layer ran in, in the order of execution, as a map of the graph."""

from __future__ import annotations

from html import escape

from tailorbird.builder.figures.gains import ms
from tailorbird.builder.figures.lanes import Block, Lane, lanes_html, short
from tailorbird.domain.layers import Layer, LayerBook, LayerTable

_FAMILIES = {"int8": "int8", "bf16": "half", "fp16": "half", "fp32": "fp32", "fp64": "fp32"}
"""Of floats and INT8; whatever else a layer runs in only moves or counts."""
_SHOWN_NODES = 3


def precision_map(book: LayerBook) -> str:
    """The section: a map for each engine; nothing where no runtime told its layers."""
    maps = "".join(f"<h3>{escape(table.candidate)}</h3>{_map(table)}" for table in book.engines if table.layers)
    said = (
        "From left to right every layer in the order it runs, as wide as the time it takes, on the strip of the "
        "precision it ran in; rest a pointer on a layer for its name."
    )
    return f'<h2>Precision of every layer</h2><p class="lead">{said}</p>{maps}' if maps else ""


def family(precision: str) -> str:
    """The colour of a precision, as a class of the page's style."""
    return _FAMILIES.get(precision, "other")


def named(precision: str) -> str:
    """A precision as people write it."""
    return precision.upper()


def _map(table: LayerTable) -> str:
    """A strip for each precision; layers that nobody timed share the width evenly."""
    timed = table.profiled > 0
    at, blocks = 0.0, dict[str, list[Block]]()
    for layer in table.layers:
        wide = layer.milliseconds if timed else 1.0
        blocks.setdefault(layer.precision, []).append(Block(at, at + wide, _title(layer)))
        at += wide
    order = [*_FAMILIES, *sorted(blocks.keys() - _FAMILIES.keys())]
    lanes = [
        Lane(named(kind) or "unknown", family(kind), tuple(blocks[kind]), _figures(table, kind))
        for kind in order
        if kind in blocks
    ]
    return lanes_html(lanes, at)


def _figures(table: LayerTable, precision: str) -> str:
    layers = [layer for layer in table.layers if layer.precision == precision]
    count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
    if not table.profiled:
        return count
    spent = sum(layer.milliseconds for layer in layers)
    return f"{count}, {ms(spent)} ms, {100 * spent / table.profiled:.0f} %"


def _title(layer: Layer) -> str:
    lines = [f"{short(layer.name)}", f"{layer.kind}, {named(layer.precision)}, {ms(layer.milliseconds)} ms"]
    lines += [short(node) for node in layer.nodes[:_SHOWN_NODES] if node != layer.name]
    more = len(layer.nodes) - _SHOWN_NODES
    return "\n".join([*lines, f"and {more} more nodes"] if more > 0 else lines)
