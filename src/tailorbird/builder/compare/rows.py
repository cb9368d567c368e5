"""Where two builds' latencies can be held against each other: the same shapes, or else the nearest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from tailorbird.builder.compare.sides import Side
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.signature import Shape

LEAST_NOISE = 0.03
"""Share of a latency that two builds may differ by though nothing changed: they were not measured in turn."""
_LEAST_MS, _MOST_MS = 1e-6, 1e9
_MOST_DIMS, _MOST_SIZE = 32, 2**31 - 1


@dataclass(frozen=True)
class Rows:
    """A row of each side's latency table."""

    a: LatencyRow
    b: LatencyRow
    same_shapes: bool

    @property
    def change(self) -> float:
        """Milliseconds by which B's median is higher."""
        return self.b.latency.median - self.a.latency.median

    @property
    def noise(self) -> float:
        """Milliseconds: both spreads as independent errors, and never below what two moments differ by."""
        least = LEAST_NOISE * min(self.a.latency.median, self.b.latency.median)
        return max(math.hypot(self.a.latency.spread, self.b.latency.spread), least)


def common_rows(a: Side, b: Side) -> Rows | None:
    """The rows to compare: where both profiled their layers, else where one of them decided, else the nearest.

    Returns:
        None where a side has no latency at all.
    """
    mine, theirs = rows_of(a), rows_of(b)
    if not mine or not theirs:
        return None
    wanted = [row for side, rows in ((a, mine), (b, theirs)) for row in _wanted(side, rows)]
    for one in (*wanted, *sorted(mine, key=_elements, reverse=True)):
        found = _with_shapes(mine, one.shapes), _with_shapes(theirs, one.shapes)
        if found[0] and found[1]:
            return Rows(*_alike(*found), same_shapes=True)
    here = _wanted(a, mine)[0]
    there = min(theirs, key=lambda row: abs(math.log(_elements(row)) - math.log(_elements(here))))
    return Rows(here, there, same_shapes=False)


def rows_of(side: Side) -> tuple[LatencyRow, ...]:
    """A side's latency table; of a log, what the rounds or the trial of the chosen candidate tell."""
    if side.manifest is not None:
        return tuple(row for row in side.manifest.latency if _is_time(row.latency.median))
    return tuple(_logged(side))


def _wanted(side: Side, rows: Sequence[LatencyRow]) -> list[LatencyRow]:
    """The place of the profiled layers first, then the one that decided."""
    table = side.layers
    found = [row for row in rows if table is not None and row.edge == table.edge]
    if side.manifest is not None:
        own = Outcome(side.manifest.candidate, Status.CHOSEN, "", latency=tuple(rows))
        deciding = own.deciding_row(side.manifest.goal)
        found += [deciding] if deciding else []
    return [*found, rows[0]]


def _with_shapes(rows: Sequence[LatencyRow], shapes: Mapping[str, Shape]) -> list[LatencyRow]:
    return [row for row in rows if row.shapes == shapes]


def _alike(mine: list[LatencyRow], theirs: list[LatencyRow]) -> tuple[LatencyRow, LatencyRow]:
    """One instance on both sides where both were measured so; otherwise what each one's candidate runs."""
    for count in (1, *sorted({row.instances for row in mine})):
        pair = [next((row for row in rows if row.instances == count), None) for rows in (mine, theirs)]
        if pair[0] and pair[1]:
            return pair[0], pair[1]
    return mine[0], theirs[0]


def _elements(row: LatencyRow) -> int:
    return max(1, sum(math.prod(shape) for shape in row.shapes.values()))


def _logged(side: Side) -> Iterator[LatencyRow]:
    name, shapes = side.name, _shapes(side)
    rounds = [float(event["medians"][name]) for event in side.events if _is_round(event, name)]
    tried = next((event.get("median") for event in side.events
                  if event["event"] == "tried" and event.get("candidate") == name), None)  # fmt: skip
    samples = rounds or ([float(tried)] if _is_time(tried) else [])
    if name and samples:
        yield LatencyRow("opt", shapes, 1, 1, Latency.of(samples))


def _is_round(event: Mapping[str, Any], name: str) -> bool:
    medians = event.get("medians")
    return event["event"] == "round" and isinstance(medians, dict) and _is_time(medians.get(name))


def _is_time(value: Any) -> TypeGuard[float]:
    """Latencies are kept to a millionth of a millisecond: what rounds to 0 or overflows was never measured."""
    return isinstance(value, (int, float)) and _LEAST_MS <= value <= _MOST_MS


def _shapes(side: Side) -> dict[str, Shape]:
    places = side.event("cases").get("places")
    opt = places.get("opt") if isinstance(places, dict) else None
    if not isinstance(opt, dict):
        return {}
    return {str(name): tuple(shape) for name, shape in opt.items() if isinstance(shape, list) and _whole(shape)}


def _whole(shape: list[Any]) -> bool:
    return len(shape) <= _MOST_DIMS and all(isinstance(size, int) and 0 < size <= _MOST_SIZE for size in shape)
