"""The scatter plot: speed against accuracy, as inline SVG for the report or a file of its own for documents."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import msgspec

from tailorbird.builder.figures.axes import Axis, axis
from tailorbird.builder.figures.labels import LINE, Box, Label, Wish, around, placed, text_width, wrapped
from tailorbird.builder.figures.points import SPEED_UP, Plot, Point
from tailorbird.builder.figures.style import PLOT_STYLE

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 26.0, 42.0
_RADIUS, _RING = 5.0, 10.0
_ABOVE_DB, _BELOW_DB = 40.0, 20.0
"""How far beyond the budget the axis of a signal-to-noise ratio goes at most: beyond, all is well, or all is lost."""

_SHAPES = (
    "M{x} {y}m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "M{x} {y}m-4.6-4.6h9.2v9.2h-9.2z",
    "M{x} {y}m0-6.2l6.2 6.2l-6.2 6.2l-6.2-6.2z",
    "M{x} {y}m0-6l5.8 10.2h-11.6z",
)
_SWATCH = "M{x} {y}m-6-3h12v6h-12z"
_FAMILIES = {"fp32": "FP32", "half": "BF16, FP16", "int8": "INT8", "mixed": "INT8 in part", "weights": "INT8 weights"}


class _Frame(msgspec.Struct, frozen=True):
    """Where everything goes."""

    plot: Plot
    x: Axis
    y: Axis
    width: float
    height: float
    shapes: dict[str, str]

    def at(self, point: Point) -> tuple[float, float]:
        return self.x.place(point.x), self.y.place(point.y)

    @property
    def box(self) -> Box:
        return Box(self.x.start, self.y.stop, self.x.stop, self.y.start)


def scatter_svg(plot: Plot, width: int = 720, height: int = 420, standalone: bool = False) -> str:
    """The plot as one SVG element.

    Args:
        plot: what to show; at least one point.
        width: of the view box; letters are 11 units high, so a phone wants a smaller one.
        height: of the view box without the legend, which comes below.
        standalone: whether it is a file of its own, with light colours fixed in it, or part of a page that styles it.
    """
    frame = _frame(plot, float(width), float(height))
    legend, below = _legend(frame)
    parts = (*_grid(frame), *_budget(frame), *_paths(frame), *_marks(frame), *_texts(frame), *legend)
    head = f'<svg viewBox="0 0 {width} {height + below:.0f}" role="img" aria-label="{_clean(_told(plot))}"'
    if not standalone:
        return f'{head} class="scatter">{"".join(parts)}</svg>'
    space = ' xmlns="http://www.w3.org/2000/svg"'
    page = f'<style>{PLOT_STYLE}</style><rect width="100%" height="100%" class="page"/>'
    size = f' width="{width}" height="{height + below:.0f}" class="scatter"'
    return f"{head}{space}{size}>{page}{''.join(parts)}</svg>\n"


def _frame(plot: Plot, width: float, height: float) -> _Frame:
    xs = [point.x for point in plot.points]
    runtimes = sorted({point.runtime for point in plot.points})
    across = axis(0.0, max(*xs, 1.0 if plot.baseline else 0.0) * 1.04, (_LEFT, width - _RIGHT), xs,
                  count=8 if width > 500 else 4)  # fmt: skip
    shapes = {name: _SHAPES[number % len(_SHAPES)] for number, name in enumerate(runtimes)}
    return _Frame(plot, across, _upright(plot, (height - _BOTTOM, _TOP)), width, height, shapes)


def _upright(plot: Plot, span: tuple[float, float]) -> Axis:
    """Ends where the budget can still be seen: what is far above or below it is drawn at the end."""
    values = [point.y for point in plot.points]
    low, high = min(values), max(values)
    if plot.limit is not None and plot.top is not None:  # a score: the loss allowed is the measure
        room = max(plot.top - plot.limit, 1e-3 * abs(plot.top), 1e-9)
        low, high = max(low, plot.limit - 5 * room), max(min(high, plot.top + 2 * room), plot.top)
        low, high = min(low, plot.limit - room), high + room / 2
    elif plot.limit is not None:
        low, high = max(low, plot.limit - _BELOW_DB), min(high, plot.limit + _ABOVE_DB)
        low, high = min(low, plot.limit - 10.0), max(high, plot.limit + 10.0)
    return axis(low, high if high > low else low + 1.0, span, values)


def _grid(frame: _Frame) -> Iterable[str]:
    box, plot = frame.box, frame.plot
    for value, text in frame.y.ticks():
        y = frame.y.place(value)
        yield f'<path class="grid" d="M{box.left:.1f} {y:.1f}H{box.right:.1f}"/>'
        yield f'<text class="tick end" x="{box.left - 7:.1f}" y="{y + 4:.1f}">{text}</text>'
    for value, text in frame.x.ticks():
        times = "×" if plot.baseline else ""
        yield f'<text class="tick middle" x="{frame.x.place(value):.1f}" y="{box.bottom + 17:.1f}">{text}{times}</text>'
    yield f'<path class="axis" d="M{box.left:.1f} {box.bottom:.1f}H{box.right:.1f}"/>'
    if plot.baseline:
        yield f'<path class="grid" d="M{frame.x.place(1.0):.1f} {box.top:.1f}V{box.bottom:.1f}"/>'
    yield f'<text class="title" x="4" y="12">{_clean(plot.y_title)}</text>'
    yield f'<text class="title end" x="{box.right:.1f}" y="{box.bottom + 34:.1f}">{_clean(_x_title(plot))}</text>'


def _x_title(plot: Plot) -> str:
    return f"{plot.x_title} {'→' if plot.baseline else ''}".strip()


def _budget(frame: _Frame) -> Iterable[str]:
    if frame.plot.limit is None:
        return
    box, y = frame.box, frame.y.place(frame.plot.limit)
    yield f'<path class="budget" d="M{box.left:.1f} {y:.1f}H{box.right:.1f}"/>'
    spot = _budget_box(frame)
    yield f'<text class="budget-text" x="{spot.left:.1f}" y="{spot.bottom - 3:.1f}">{_budget_text(frame)}</text>'


def _budget_text(frame: _Frame) -> str:
    unit = "" if frame.plot.top is not None else " dB"
    return f"budget {frame.plot.limit:.4g}{unit}"


def _budget_box(frame: _Frame) -> Box:
    """Where the budget's text stands: below its line, on the left, where slow and wrong engines are rare."""
    y = frame.y.place(frame.plot.limit or 0.0)
    return Box(frame.box.left + 4, y + 2, frame.box.left + 8 + text_width(_budget_text(frame)), y + 2 + LINE)


def _paths(frame: _Frame) -> Iterable[str]:
    where = {point.name: frame.at(point) for point in frame.plot.points}
    for path in frame.plot.paths:
        line = "L".join(f"{where[name][0]:.1f} {where[name][1]:.1f}" for name in path.names)
        yield f'<path class="search" d="M{line}"/>'


def _marks(frame: _Frame) -> Iterable[str]:
    """Every point, the chosen one last and so on top."""
    for point in sorted(frame.plot.points, key=lambda one: one.chosen):
        x, y = frame.at(point)
        shape = frame.shapes[point.runtime].format(x=f"{x:.1f}", y=f"{y:.1f}")
        ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{_RING:g}"/>' if point.chosen else ""
        look = f"{point.family} {'passed' if point.passed else 'refused'}"
        yield f'<g><title>{_clean(_tip(point, frame.plot))}</title>{ring}<path class="{look}" d="{shape}"/></g>'


def _tip(point: Point, plot: Plot) -> str:
    speed = f"{point.x:.2f}×" if plot.baseline else f"{point.x:.3g} ms"
    height = f"{plot.y_title} {point.y:.4g}"
    return f"{point.name}\n{speed}, {height}\n{point.note}"


def _texts(frame: _Frame) -> Iterable[str]:
    """Names of the few that matter, and how much each attempt kept."""
    points = [around(*frame.at(point), _drawn(point) + 1) for point in frame.plot.points]
    taken = [_budget_box(frame)] if frame.plot.limit is not None else []
    # A name may stand in the margin on the right and above, but never over the axes.
    room = frame.box._replace(top=16.0, right=frame.width - 2)
    for label in placed(_wishes(frame), points, taken, room):
        yield _text(label)


def _wishes(frame: _Frame) -> list[Wish]:
    plot, letters = frame.plot, 24 if frame.width > 500 else 17
    attempts = {name: text for path in plot.paths for name, text in zip(path.names[1:], path.labels[1:], strict=True)}
    steps = [Wish(*frame.at(point), (attempts[point.name],), "step")
             for point in plot.points if point.name in attempts and not point.chosen]  # fmt: skip
    notable = [point for point in _notable(plot) if point.chosen or point.name not in attempts]
    notable = notable[: 6 if frame.width > 500 else 4]
    named = [Wish(*frame.at(point), wrapped(point.name, letters), "best" if point.chosen else "", _drawn(point))
             for point in notable]  # fmt: skip
    return [*named[:1], *steps, *named[1:]]


def _drawn(point: Point) -> float:
    """The radius of what is drawn at a point."""
    return _RING if point.chosen else _RADIUS


def _notable(plot: Plot) -> list[Point]:
    """The chosen one, the baseline, where each search began, and the fastest on the edge of what is possible."""
    begun = {path.names[0] for path in plot.paths}
    sign = -1.0 if plot.baseline else 1.0
    edge = [point for point in plot.points if not any(_beats(other, point, plot) for other in plot.points)]
    ranked = sorted(edge, key=lambda point: (not point.passed, sign * point.x))
    first = [point for point in plot.points if point.chosen]
    second = [point for point in plot.points if point.name == plot.baseline or point.name in begun]
    return list(dict.fromkeys([*first, *second, *ranked]))


def _beats(one: Point, other: Point, plot: Plot) -> bool:
    """Whether it is faster and closer to FP32."""
    faster = one.x > other.x if plot.baseline else one.x < other.x
    return faster and one.y > other.y


def _text(label: Label) -> str:
    box, wish = label.box, label.wish
    to_left = box.right <= wish.x
    anchor, x = ("end", box.right) if to_left else ("start", box.left)
    if box.left < wish.x < box.right:
        anchor, x = "middle", (box.left + box.right) / 2
    spans = "".join(f'<tspan x="{x:.1f}" y="{box.top + LINE * (number + 0.8):.1f}">{_clean(line)}</tspan>'
                    for number, line in enumerate(wish.lines))  # fmt: skip
    leader = f'<path class="leader" d="M{wish.x:.1f} {wish.y:.1f}L{_nearest(label)}"/>' if label.far else ""
    return f'{leader}<text class="label {anchor} {wish.style}">{spans}</text>'


def _nearest(label: Label) -> str:
    box, wish = label.box, label.wish
    x = min(max(wish.x, box.left), box.right)
    y = min(max(wish.y, box.top), box.bottom)
    return f"{x:.1f} {y:.1f}"


def _legend(frame: _Frame) -> tuple[list[str], float]:
    """Its marks and texts in rows below the plot, and the height they take."""
    parts, x, y = [], _LEFT, frame.height + 8
    for mark, text in _entries(frame):
        wide = 28 + text_width(text)
        if x > _LEFT and x + wide > frame.width - 4:
            x, y = _LEFT, y + 20
        parts.append(mark.format(x=f"{x:.1f}", y=f"{y:.1f}"))
        parts.append(f'<text class="tick" x="{x + 11:.1f}" y="{y + 4:.1f}">{_clean(text)}</text>')
        x += wide
    return parts, y + 14 - frame.height


def _entries(frame: _Frame) -> Iterable[tuple[str, str]]:
    """Marks to be placed at x, y, and what they mean; only what is in the plot."""
    points = frame.plot.points
    for name, text in _FAMILIES.items():
        if any(point.family == name for point in points):
            yield f'<path class="{name} passed" d="{_SWATCH}"/>', text
    if len(frame.shapes) > 1:
        yield from ((f'<path class="plain" d="{shape}"/>', name) for name, shape in frame.shapes.items())
    if any(not point.passed for point in points):
        yield f'<path class="plain refused" d="{_SWATCH}"/>', "refused by the gate"
    if any(point.chosen for point in points):
        yield '<circle class="ring" cx="{x}" cy="{y}" r="7"/>', "chosen"


def _told(plot: Plot) -> str:
    """The plot in a sentence, for those who cannot see it."""
    passed = sum(point.passed for point in plot.points)
    best = next((point for point in plot.points if point.chosen), None)
    counts = f"{len(plot.points)} engines by {plot.x_title} and {plot.y_title}: {passed} passed the gate"
    if best is None:
        return counts
    speed = f"{best.x:.2f} times as fast" if plot.x_title == SPEED_UP else f"{best.x:.3g} ms"
    return f"{counts}. Chosen: {best.name}, {speed}, {best.y:.4g}."


def _clean(text: str) -> str:
    """Text that any XML reader takes: vendors' messages hold what a terminal would swallow."""
    return escape("".join(letter for letter in text if letter.isprintable() or letter == "\n"))
