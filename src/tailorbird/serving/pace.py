"""Pace: how a version is doing, for its status page."""

from __future__ import annotations

import msgspec
import numpy as np

from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.statistics import Trouble, VersionStatistics

BARS = 28


class Spread(msgspec.Struct, frozen=True):
    """Where the latest answers' latencies lie: counts in intervals of equal width on a logarithmic scale."""

    low_ms: float
    """Where the first interval begins."""
    high_ms: float
    """Where the last one ends."""
    counts: tuple[int, ...]


class Pace(msgspec.Struct, frozen=True):
    """How a version is doing."""

    answered: int = 0
    failed: int = 0
    waiting: int = 0
    """Requests accepted and not yet answered."""
    crashes: int = 0
    p50_ms: float | None = None
    """Of the latest answers; None before the first."""
    p99_ms: float | None = None
    troubles: tuple[Trouble, ...] = ()
    """The latest failures, the newest first."""
    spread: Spread | None = None
    """Of the latest answers; None before the first."""
    rows_a_run: float | None = None
    """On average; None before the first run."""
    most_rows: int = 0
    """Of one run."""
    alive: int = 0
    """Instances that can run."""
    instances: int = 0
    """All of them; 0 where that is not known."""


def pace_of(model: LoadedModel) -> Pace:
    """The pace of a version in service."""
    found = model.statistics
    p50, p99 = np.percentile(found.recent, (50, 99)) * 1e3 if found.recent else (None, None)
    alive, instances = getattr(model.instance, "instances", (0, 0))
    return Pace(
        answered=found.answered.count,
        failed=found.failures.total(),
        waiting=model.instance.outstanding,
        crashes=found.crashes,
        p50_ms=p50,
        p99_ms=p99,
        troubles=tuple(found.troubles)[::-1],
        spread=spread_of(tuple(found.recent)),
        rows_a_run=_rows_a_run(found),
        most_rows=max(found.sizes, default=0),
        alive=alive,
        instances=instances,
    )


def spread_of(seconds: tuple[float, ...]) -> Spread | None:
    """The spread of latencies, at least a factor of four wide, so that steady ones do not look scattered."""
    if not seconds:
        return None
    logs = np.log(np.maximum(np.asarray(seconds), 1e-7) * 1e3)
    low, high = float(logs.min()), float(logs.max())
    missing = max(0.0, np.log(4.0) - (high - low)) / 2
    low, high = low - missing - 0.01, high + missing + 0.01
    counts, _ = np.histogram(logs, BARS, (low, high))
    return Spread(float(np.exp(low)), float(np.exp(high)), tuple(map(int, counts)))


def _rows_a_run(found: VersionStatistics) -> float | None:
    runs = sum(one.count for one in found.sizes.values())
    return sum(rows * one.count for rows, one in found.sizes.items()) / runs if runs else None
