"""What a run costs: the engine's latency table as a function of rows, corrected by what is seen in service."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import prod

import msgspec

from tailorbird.domain.latency import LatencyRow

GAIN = 1 / 4
"""Weight of the newest run in the average ratio of seen to predicted seconds."""

STRIDE = 4.0
"""One run may look at most this many times slower or faster than the last average: a hiccup is not a trend."""

_Points = tuple[tuple[float, float], ...]


class CostTable:
    """The latency table, read as seconds by rows, by how many executors run at once, and by size of a row.

    The rows measured at the opt shape make the curve. A place whose rows hold more or fewer elements than
    those of the opt shape (the min and max edges of a model with dynamic lengths) says how much dearer or
    cheaper such rows are.

    Args:
        rows: the manifest's table; an empty one knows nothing, and :attr:`known` is False.
    """

    def __init__(self, rows: Sequence[LatencyRow]) -> None:
        base = next((row for row in rows if row.edge == "opt"), rows[0] if rows else None)
        self._size = _elements(base) if base else 0.0
        counts = sorted({row.instances for row in rows})
        curves = {count: self._curve([row for row in rows if row.instances == count]) for count in counts}
        self._curves = {count: curve for count, curve in curves.items() if curve}
        self._scales = self._scale_points(rows)
        self.noise = max(0.0, base.latency.p90 / base.latency.median - 1) if base and base.latency.median else 0.0

    @property
    def known(self) -> bool:
        """Whether the table says anything."""
        return bool(self._curves)

    def seconds(self, rows: int, busy: int = 1) -> float:
        """Median seconds of a run at the opt shape with that many rows while ``busy`` executors run; 0 if unknown.

        Linear between measured rows, and nowhere falling: where more rows were measured to be quicker, that
        was noise. Below the fewest measured rows it is what those took, for the engine may be given no
        fewer. Above the most it goes on as it last rose; of a single measurement, in proportion.
        """
        return _interpolate(self._nearest(busy), rows)

    def scale(self, elements: float) -> float:
        """How many times as long a run takes when each row has that many elements, against the opt shape."""
        held = min(max(elements, self._scales[0][0]), self._scales[-1][0]) if self._scales else elements
        return _interpolate(self._scales, held) if self._scales else 1.0

    def _curve(self, rows: Sequence[LatencyRow]) -> _Points:
        return _rising([(row.rows, row.latency.median / 1e3) for row in rows if _elements(row) == self._size])

    def _nearest(self, busy: int) -> _Points:
        """The curve of as many instances; of the next fewer, or else of the fewest, where that was not measured."""
        if busy in self._curves:
            return self._curves[busy]
        fewer = [count for count in self._curves if count < busy]
        return self._curves[max(fewer) if fewer else min(self._curves)] if self._curves else ()

    def _scale_points(self, rows: Sequence[LatencyRow]) -> _Points:
        points = [(self._size, 1.0)] if self.known else []
        for row in rows if self.known else ():
            usual = self.seconds(row.rows, row.instances)
            if usual and _elements(row) != self._size:
                points.append((_elements(row), row.latency.median / 1e3 / usual))
        return _rising(points)


class Costs:
    """What runs of one bucket cost: the table, times what the runs seen so far took against it.

    The ratio of seen to predicted seconds, one for each number of busy executors, is an exponentially
    weighted average, and so is its deviation, as a TCP sender does it with round trips (RFC 6298,
    section 2).

    Args:
        table: of the engine.
        elements: of one row, over all inputs.
    """

    def __init__(self, table: CostTable, elements: float) -> None:
        self._table = table
        self._scale = table.scale(elements)
        self._seen: dict[int, Ratio] = {}

    @property
    def noise(self) -> float:
        """Of the table: how much longer than the median its slow runs took, as a fraction."""
        return self._table.noise

    def predicted(self, rows: int, busy: int = 1) -> float:
        """Seconds by the table alone, whatever was seen; 0 if unknown."""
        return self._table.seconds(rows, busy) * self._scale

    def seconds(self, rows: int, busy: int = 1) -> float:
        """Seconds of a run with that many rows while ``busy`` executors run, itself among them; 0 if unknown."""
        ratio = self._seen.get(busy)
        predicted = self.predicted(rows, busy)
        return predicted * ratio.mean if ratio else predicted

    def at_most(self, rows: int, busy: int = 1) -> float:
        """Seconds that such a run seldom exceeds: the usual ones and two mean deviations; 0 if unknown."""
        ratio = self._seen.get(busy)
        predicted = self.predicted(rows, busy)
        return predicted * (ratio.mean + 2 * ratio.deviation if ratio else 1 + self._table.noise)

    def observe(self, rows: int, busy: int, seconds: float) -> None:
        """Take note of a run that was seen."""
        predicted = self.predicted(rows, busy)
        if predicted > 0:
            ratio = self._seen.setdefault(busy, Ratio(1.0, self._table.noise / 2))
            ratio.observe(seconds / predicted)


class Ratio(msgspec.Struct):
    """Of seen to predicted seconds: a moving average."""

    mean: float
    deviation: float

    def observe(self, seen: float) -> None:
        """One more."""
        held = min(max(seen, self.mean / STRIDE), self.mean * STRIDE)
        self.deviation += GAIN * (abs(held - self.mean) - self.deviation)
        self.mean += GAIN * (held - self.mean)


def _elements(row: LatencyRow) -> float:
    """Elements of one row over all inputs."""
    return sum(map(prod, row.shapes.values())) / max(row.rows, 1)


def _rising(points: Sequence[tuple[float, float]]) -> _Points:
    """Sorted by place, and nowhere falling."""
    found: dict[float, float] = {}
    highest = 0.0
    for place, value in sorted(points):
        highest = max(highest, value)
        found[place] = highest
    return tuple(found.items())


def _interpolate(points: _Points, place: float) -> float:
    if not points:
        return 0.0
    first, value = points[0]
    if place <= first:
        return value
    if len(points) == 1:
        return value * place / first
    right = min(max(bisect_left(points, (place,)), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    return y0 + (y1 - y0) * (place - x0) / (x1 - x0)
