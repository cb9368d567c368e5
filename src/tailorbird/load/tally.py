"""The tally: what became of every request, with latencies in an HDR histogram.

Latency is counted from the moment a request was *meant* to be sent: while a slow server keeps the generator waiting,
the requests it should have sent meanwhile have waited, too. (Leaving them out is called coordinated omission.)
"""

from __future__ import annotations

from typing import Any

import msgspec

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

_HIGHEST_US = 3600 * 10**6
_DIGITS = 3


class Summary(msgspec.Struct, frozen=True):
    """What a run came to. Latencies are in milliseconds, of answered requests only."""

    scenario: str
    seconds: float
    sent: int
    answered: int
    refused: int
    """429 and 503: the server said at once that it cannot."""
    failed: int
    """Any other answer, and connections that broke."""
    rate: float
    """Answers a second."""
    rows_rate: float
    """Rows answered a second."""
    goodput: float | None
    """Answers within the SLO a second; None without one."""
    slo_ms: float | None
    latency_ms: dict[str, float]
    """By percentile: ``p50`` to ``p99.9``, and ``max``."""
    refusal_ms: dict[str, float]
    """The same of refusals."""
    late_ms: float
    """99th percentile of how late the generator itself was: above a few milliseconds it is the bottleneck."""
    faults: dict[str, int]
    """How often each fault was seen."""


class Tally:
    """Counts; cheap enough to be kept while the load runs."""

    def __init__(self, scenario: str, slo_ms: float | None = None) -> None:
        self._scenario = scenario
        self._slo = slo_ms
        self._latency, self._refusal, self._late = _histogram(), _histogram(), _histogram()
        self._sent = self._answered = self._refused = self._rows = self._good = 0
        self._faults: dict[str, int] = {}

    def sent(self, late: float) -> None:
        """One more request was sent, ``late`` seconds after it was meant to be."""
        self._sent += 1
        self._late.record_value(_microseconds(late))

    def answered(self, seconds: float, rows: int) -> None:
        """An answer came, ``seconds`` after its request was meant to be sent."""
        self._answered += 1
        self._rows += rows
        self._good += self._slo is not None and seconds * 1e3 <= self._slo
        self._latency.record_value(_microseconds(seconds))

    def refused(self, seconds: float) -> None:
        """The server refused for want of room."""
        self._refused += 1
        self._refusal.record_value(_microseconds(seconds))

    def failed(self, fault: str) -> None:
        """Something else came, or nothing."""
        self._faults[fault] = self._faults.get(fault, 0) + 1

    def summary(self, seconds: float) -> Summary:
        """The tally after a run of so many seconds."""
        return Summary(
            scenario=self._scenario,
            seconds=round(seconds, 3),
            sent=self._sent,
            answered=self._answered,
            refused=self._refused,
            failed=sum(self._faults.values()),
            rate=self._answered / seconds,
            rows_rate=self._rows / seconds,
            goodput=None if self._slo is None else self._good / seconds,
            slo_ms=self._slo,
            latency_ms=_percentiles(self._latency),
            refusal_ms=_percentiles(self._refusal),
            late_ms=self._late.get_value_at_percentile(99) / 1e3 if self._sent else 0.0,
            faults=dict(sorted(self._faults.items())),
        )

    def encoded(self) -> bytes:
        """The latencies in the interchange form of HDR histograms, in microseconds."""
        encoded: bytes = self._latency.encode()
        return encoded


def _histogram() -> Any:
    from hdrh.histogram import HdrHistogram

    return HdrHistogram(1, _HIGHEST_US, _DIGITS)


def _percentiles(histogram: Any) -> dict[str, float]:
    if not histogram.total_count:
        return {}
    found = {f"p{at:g}": histogram.get_value_at_percentile(at) / 1e3 for at in PERCENTILES}
    return found | {"max": histogram.get_max_value() / 1e3}


def _microseconds(seconds: float) -> int:
    return max(1, min(_HIGHEST_US, round(seconds * 1e6)))
