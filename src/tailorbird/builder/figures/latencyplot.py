"""The latency plot: milliseconds and rows a second of the chosen engine, by batch or shape and by instances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

import msgspec

from tailorbird.builder.figures.axes import Axis, axis
from tailorbird.builder.figures.gains import ms, rate
from tailorbird.builder.figures.labels import text_width
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.profile import format_shapes

_WIDTH, _HEIGHT = 360.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 24.0, 40.0
_SHAPES = (
    "M{x} {y}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M{x} {y}m-3.6-3.6h7.2v7.2h-7.2z",
    "M{x} {y}m0-5l5 5l-5 5l-5-5z",
    "M{x} {y}m0-4.8l4.8 8.4h-9.6z",
)


class _Panel(msgspec.Struct, frozen=True):
    """One measure of the same rows."""

    title: str
    value: Callable[[LatencyRow], float]
    told: Callable[[LatencyRow], str]
    spread: Callable[[LatencyRow], tuple[float, float]]
    """Ends of the line through a mark: the middle half of the runs; the value twice for no line."""


_PANELS = (
    _Panel("median ms, and the middle half of the runs", lambda row: row.latency.median,
           lambda row: f"{ms(row.latency.median)} ms, 99 % within {ms(row.latency.p99)} ms",
           lambda row: (row.latency.p25, row.latency.p75)),
    _Panel("rows a second", rate, lambda row: f"{rate(row):,.4g} rows a second", lambda row: (rate(row), rate(row))),
)  # fmt: skip


def latency_plot(rows: Sequence[LatencyRow]) -> str:
    """Two plots side by side, or nothing where there is one place and one instance only."""
    if len(rows) < 2:
        return ""
    places = sorted({row.edge: row for row in rows}.values(), key=_volume)
    counts = sorted({row.instances for row in rows})
    panels = "".join(f"<section>{_svg(panel, rows, places, counts)}</section>" for panel in _PANELS)
    return f'<div class="beside even">{panels}</div>{_legend(counts)}'


def _volume(row: LatencyRow) -> tuple[int, int]:
    """From small to large: elements of all inputs, then rows."""
    return sum(math.prod(shape) for shape in row.shapes.values()), row.rows


def _svg(panel: _Panel, rows: Sequence[LatencyRow], places: Sequence[LatencyRow], counts: Sequence[int]) -> str:
    highest = max(panel.spread(row)[1] for row in rows)
    values = [panel.value(row) for row in rows]
    upright = axis(0.0, highest or 1.0, (_HEIGHT - _BOTTOM, _TOP), values, count=4)
    spots = {row.edge: _LEFT + (number + 0.5) * (_WIDTH - _LEFT - _RIGHT) / len(places)
             for number, row in enumerate(places)}  # fmt: skip
    series = (_series(panel, [row for row in rows if row.instances == count], upright, spots, number)
              for number, count in enumerate(counts))  # fmt: skip
    parts = [*_grid(upright, panel.title), *_names(places, spots), *(part for one in series for part in one)]
    told = f"{panel.title} at {len(places)} places; the table below has the numbers"
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(told)}" class="scatter">'
        f"{''.join(parts)}</svg>"
    )


def _grid(upright: Axis, title: str) -> Iterator[str]:
    for value, _ in upright.ticks():
        y = upright.place(value)
        yield f'<path class="grid" d="M{_LEFT:.0f} {y:.1f}H{_WIDTH - _RIGHT:.0f}"/>'
        yield f'<text class="tick end" x="{_LEFT - 7:.0f}" y="{y + 4:.1f}">{_round(value)}</text>'
    yield f'<text class="title" x="4" y="11">{escape(title)}</text>'


def _round(value: float) -> str:
    """A tick's text: ``2.5``, ``400``, ``25k``."""
    return f"{value / 1e6:.4g}M" if value >= 1e6 else f"{value / 1e3:.4g}k" if value >= 1e4 else f"{value:.4g}"


def _names(places: Sequence[LatencyRow], spots: dict[str, float]) -> Iterator[str]:
    """Batches where nothing else differs, otherwise the places' names; as many as there is room for."""
    batches = len({row.rows for row in places}) == len(places) and _differ_in_rows(places)
    free = 0.0
    for row in places:
        text = str(row.rows) if batches else row.edge
        left = spots[row.edge] - text_width(text) / 2
        if left >= free and left + text_width(text) <= _WIDTH:
            spot = f'x="{spots[row.edge]:.1f}" y="{_HEIGHT - _BOTTOM + 16:.0f}"'
            yield f'<text class="tick middle" {spot}>{escape(text)}</text>'
            free = left + text_width(text) + 4
    title = "rows in a batch" if batches else "places, from small to large"
    yield f'<text class="title end" x="{_WIDTH - _RIGHT:.0f}" y="{_HEIGHT - 6:.0f}">{title}</text>'


def _differ_in_rows(places: Sequence[LatencyRow]) -> bool:
    return len({tuple((name, shape[1:]) for name, shape in row.shapes.items()) for row in places}) == 1


def _series(
    panel: _Panel, rows: Sequence[LatencyRow], upright: Axis, spots: dict[str, float], number: int
) -> Iterator[str]:
    """One count of instances: a line through its marks, and above each how far the slow runs reach."""
    ordered = sorted(rows, key=_volume)
    line = "L".join(f"{spots[row.edge]:.1f} {upright.place(panel.value(row)):.1f}" for row in ordered)
    yield f'<path class="series s{number % len(_SHAPES)}" d="M{line}"/>'
    for row in ordered:
        x, y = spots[row.edge], upright.place(panel.value(row))
        low, high = map(upright.place, panel.spread(row))
        mark = _SHAPES[number % len(_SHAPES)].format(x=f"{x:.1f}", y=f"{y:.1f}")
        title = f"{row.edge}, {format_shapes(row.shapes)}\n{_instances(row.instances)}: {panel.told(row)}"
        yield (
            f'<g><title>{escape(title)}</title><path class="spread" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
            f'<path class="mark s{number % len(_SHAPES)}" d="{mark}"/></g>'
        )


def _legend(counts: Sequence[int]) -> str:
    if len(counts) < 2:
        return ""
    entries = "".join(f"<span>{_key(number)} {_instances(count)}</span>" for number, count in enumerate(counts))
    return f'<p class="legend">{entries}</p>'


def _key(number: int) -> str:
    series = number % len(_SHAPES)
    mark = f'<path class="mark s{series}" d="{_SHAPES[series].format(x=0, y=0)}"/>'
    return f'<svg viewBox="-7 -7 14 14" class="scatter key" aria-hidden="true">{mark}</svg>'


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances side by side"
