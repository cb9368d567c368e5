"""Layer times: where the chosen engine and the runner-up spend a run, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tailorbird.builder.figures.gains import ms
from tailorbird.builder.figures.lanes import short
from tailorbird.builder.figures.matching import Part, parts_of
from tailorbird.builder.figures.precisions import family, named
from tailorbird.domain.layers import Layer, LayerBook, LayerTable

_KINDS = 10
_PARTS = 15
_MOST_PARTS = 400
_NAME = 80

ROLES = ("chosen", "runner-up")


def layer_times(book: LayerBook) -> str:
    """The section, or nothing where no engine's layers were timed."""
    tables = [table for table in book.engines[: len(ROLES)] if table.profiled > 0]
    if not tables:
        return ""
    scale = max(spent for table in tables for _, spent in _by_kind(table.layers))
    columns = "".join(f"<section>{_kinds(table, role, scale)}</section>"
                      for table, role in zip(tables, ROLES, strict=False))  # fmt: skip
    said = (
        "Each runtime’s own profiler, on the inputs that decided. Profiling costs time itself, so the layers together "
        "may take longer than a run does without it; where a runtime works between layers, they take less."
    )
    return (
        f'<h2>Time by layer</h2><p class="lead">{said}</p><div class="beside even">{columns}</div>'
        f"<h3>The slowest parts of the model</h3>{_parts(parts_of(tables), tables)}"
    )


def _by_kind(layers: Iterable[Layer]) -> list[tuple[tuple[str, str, int], float]]:
    """Kind, precision and count of layers, with their milliseconds together; the slowest first."""
    spent: dict[tuple[str, str], list[float]] = {}
    for layer in layers:
        spent.setdefault((layer.kind, layer.precision), []).append(layer.milliseconds)
    found = [((*key, len(times)), sum(times)) for key, times in spent.items()]
    return sorted(found, key=lambda one: -one[1])


def _kinds(table: LayerTable, role: str, scale: float) -> str:
    kinds = _by_kind(table.layers)
    rows = "".join(_bar(*one, scale) for one in kinds[:_KINDS])
    rest = sum(spent for _, spent in kinds[_KINDS:])
    others = _bar(("other kinds", "", sum(one[2] for one, _ in kinds[_KINDS:])), rest, scale) if rest else ""
    won = ' class="won"' if role == ROLES[0] else ""
    return (
        f"<h3><span{won}>{escape(role)}</span> {escape(table.candidate)}</h3>"
        f'<p class="lead">{ms(table.latency)} ms a run; {len(table.layers)} layers of {ms(table.profiled)} ms together'
        f'{_where(table)}</p><div class="bars wide-names">{rows}{others}</div>'
    )


def _where(table: LayerTable) -> str:
    return f", over {table.runs} runs at {escape(table.edge)}"


def _bar(kind: tuple[str, str, int], spent: float, scale: float) -> str:
    name, precision, count = kind
    words = " ".join(filter(None, (escape(short(name, _NAME)), f"× {count}", escape(named(precision)))))
    fill = f'<div class="fill {family(precision)}" style="width:{100 * spent / scale:.1f}%"></div>'
    return f'<div class="unit">{words}</div><div class="track">{fill}</div><div class="n">{ms(spent)} ms</div>'


def _parts(parts: Sequence[Part], tables: Sequence[LayerTable]) -> str:
    scale = max((max(part.times) for part in parts), default=0.0) or 1.0
    first, rest = parts[:_PARTS], parts[_PARTS:_MOST_PARTS]
    more = f"{len(parts) - _PARTS} faster ones" + (
        f", the first {len(rest)} of them" if len(parts) > _MOST_PARTS else ""
    )
    folded = f"<details><summary>{more}</summary>{_table(rest, tables, scale)}</details>" if rest else ""
    return f"{_table(first, tables, scale)}{folded}"


def _table(parts: Sequence[Part], tables: Sequence[LayerTable], scale: float) -> str:
    roles = ROLES[: len(tables)]
    heads = "".join(f'<th>{role} ran<th class="n">ms<th class="minor">' for role in roles)
    last = '<th class="n">difference' if len(tables) > 1 else ""
    rows = "".join(_part(part, scale) for part in parts)
    return f'<div class="scroll"><table class="parts"><tr><th>part of the model{heads}{last}</tr>{rows}</table></div>'


def _part(part: Part, scale: float) -> str:
    cells = "".join(_engine(layers, spent, scale) for layers, spent in zip(part.layers, part.times, strict=True))
    several = len(part.times) > 1 and all(part.layers)
    difference = f"{part.times[0] - part.times[1]:+.2g}" if several else ""
    last = f'<td class="n">{difference}' if len(part.layers) > 1 else ""
    return f'<tr><td class="code">{_nodes(part.nodes)}{cells}{last}</tr>'


def _engine(layers: Sequence[Layer], spent: float, scale: float) -> str:
    """What one engine runs for a part: kinds and precisions, the slowest first."""
    if not layers:
        return '<td class="soft">–<td><td class="minor">'
    kinds = _by_kind(layers)
    words = ", ".join(f"{escape(short(kind, _NAME))}{f' × {count}' if count > 1 else ''} {escape(named(precision))}"
                      for (kind, precision, count), _ in kinds[:3])  # fmt: skip
    more = f" and {len(kinds) - 3} more kinds" if len(kinds) > 3 else ""
    fill = f'<div class="fill {family(kinds[0][0][1])}" style="width:{100 * spent / scale:.1f}%"></div>'
    return f'<td>{words}{more}<td class="n">{ms(spent)}<td class="minor"><div class="track">{fill}</div>'


def _nodes(nodes: Sequence[str]) -> str:
    if not nodes:
        return '<span class="soft">the engine’s own</span>'
    first = escape(short(nodes[0], _NAME))
    if len(nodes) == 1:
        return first
    between = f" +{len(nodes) - 2}" if len(nodes) > 2 else ""
    return f"{first}{between} … {escape(short(nodes[-1], _NAME))}"
