"""The comparison as one HTML page: light and dark, no script, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tailorbird.builder.compare import words
from tailorbird.builder.compare.comparison import Basis, Cause, Comparison, LayerSide, Pair, SideFacts
from tailorbird.builder.figures.style import PAGE_STYLE

MOST_PAIRS = 15
"""Pairs of layers that stand open; the rest is folded away."""

_STYLE = """
.turns { display: grid; grid-template-columns: minmax(0, 1fr) 7rem auto; gap: .35rem .8rem; align-items: center;
  font-size: .9rem; max-width: 60rem } .turns .n { text-align: right; font-variant-numeric: tabular-nums }
.turns .what { overflow-wrap: anywhere } .turns .track { width: 100%; margin: 0 }
.more { background: var(--bad) } .less { background: var(--win) }
td.path { overflow-wrap: anywhere; min-width: 9rem } td.layer { overflow-wrap: anywhere; min-width: 8rem }
@media (max-width: 40rem) { .turns { grid-template-columns: minmax(0, 1fr) auto } .turns .what { grid-column: 1 / -1 } }
"""


def page_of(found: Comparison) -> str:
    """The whole page."""
    title = f"Comparison of {escape(_title(found.a))} and {escape(_title(found.b))}"
    parts = (
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}.</p>' for sentence in found.summary),
        _sides(found),
        _latency(found),
        _accuracy(found),
        _differences(found),
        _layers(found.layers),
        _notes(found.notes),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{PAGE_STYLE}{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _title(side: SideFacts) -> str:
    return side.model or side.path


def _sides(found: Comparison) -> str:
    rows = "".join(
        f"<tr><td>{letter}<td class='path'>{escape(one.path)}<td class='w'>{escape(one.kind)}"
        f"<td class='path'>{escape(one.candidate)}<td class='w'>{escape(one.created)}</tr>"
        for letter, one in (("A", found.a), ("B", found.b))
    )
    return _table("Which is which", "<th>side<th>path<th>kind<th>engine<th>built", rows)


def _latency(found: Comparison) -> str:
    change = found.latency
    if change is None:
        return ""
    where = "measured here in turn" if change.measured_here else "as the builds recorded it"
    lead = (
        f'<p class="lead">{words.ms(change.change)} ms of change, {where}; noise {words.ms(change.noise)} ms. '
        "Contributions add up to the change; a bar to red is time lost, to green time won.</p>"
    )
    return f"<h2>What the latency's change is made of</h2>{lead}{_bars(change.causes, 'ms', 1.0)}"


def _accuracy(found: Comparison) -> str:
    change = found.accuracy
    rows = "".join(
        f"<tr><td>{escape(one.rule)}<td class='path'>{escape(one.where)}<td class='n'>{_number(one.a)}"
        f"<td class='n'>{_number(one.b)}<td class='n'>{_number(one.reference_a)}"
        f"<td class='n'>{_number(one.reference_b)}</tr>"
        for one in found.figures
    )
    head = '<th>figure<th>where<th class="n">A<th class="n">B<th class="n">FP32 of A<th class="n">FP32 of B'
    bars = _bars(change.causes, *(("", 1.0) if change.rule.startswith("metric ") else ("%", 100.0))) if change else ""
    table = _table("", head, rows) if rows else '<p class="lead">Not measured.</p>'
    return f"<h2>Accuracy</h2>{bars}{table}"


def _bars(causes: Sequence[Cause], unit: str, factor: float) -> str:
    most = max((abs(one.contribution or 0.0) for one in causes), default=0.0) or 1.0
    return f'<div class="turns">{"".join(_bar(one, most, unit, factor) for one in causes)}</div>' if causes else ""


def _bar(cause: Cause, most: float, unit: str, factor: float) -> str:
    part = cause.contribution
    kind = "less" if (part or 0.0) < 0 else "more"
    number = "not measured" if part is None else f"{factor * part:+.3g} {unit}"
    spread = f" ± {factor * cause.spread:.2g}" if cause.spread is not None else ""
    basis = "" if part is None or cause.basis is Basis.NONE else f" ({cause.basis})"
    area = escape(words.areas_words(cause.areas))
    return (
        f'<div class="what"><strong>{area}</strong>: {escape(cause.text)}{basis}</div>'
        f'<div class="track"><div class="fill {kind}" style="width:{100 * abs(part or 0.0) / most:.1f}%"></div></div>'
        f'<div class="n">{number}{spread}</div>'
    )


def _differences(found: Comparison) -> str:
    rows = "".join(
        f"<tr><td class='w'>{escape(one.area)}<td class='w'>{escape(one.what)}"
        f"<td class='path'>{escape(words.short(one.a, 200))}"
        f"<td class='path'>{escape(words.short(one.b, 200))}</tr>"
        for one in found.differences
    )
    if not rows:
        return '<h2>What differs</h2><p class="lead">Nothing that was recorded.</p>'
    return _table("What differs", "<th>area<th>what<th>A<th>B", rows)


def _layers(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    order = sorted(pairs, key=lambda one: -abs(one.change))
    head = '<th>nodes<th>A<th class="n">ms<th>B<th class="n">ms<th class="n">change<th>because of'
    shown = _table("Layer by layer", head, "".join(map(_pair, order[:MOST_PAIRS])))
    if len(order) <= MOST_PAIRS:
        return shown
    rest = _table("", head, "".join(map(_pair, order[MOST_PAIRS:])))
    return f"{shown}<details><summary>{len(order) - MOST_PAIRS} more groups of layers</summary>{rest}</details>"


def _pair(pair: Pair) -> str:
    return (
        f"<tr><td class='layer'>{escape(words.listed(pair.nodes))}<td class='layer'>{_side(pair.a)}"
        f"<td class='n'>{_sum(pair.a)}<td class='layer'>{_side(pair.b)}<td class='n'>{_sum(pair.b)}"
        f"<td class='n'>{pair.change:+.3f}<td class='w'>{escape(pair.area)}</tr>"
    )


def _side(layers: Iterable[LayerSide]) -> str:
    return "<br>".join(f"{escape(words.short(one.kind, 40))} {escape(one.precision)}" for one in layers) or "-"


def _sum(layers: Sequence[LayerSide]) -> str:
    return f"{sum(one.milliseconds for one in layers):.3f}" if layers else "-"


def _notes(notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{lines}</ul>" if notes else ""


def _table(title: str, head: str, rows: str) -> str:
    heading = f"<h2>{title}</h2>" if title else ""
    return f'{heading}<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
