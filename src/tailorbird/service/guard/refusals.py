"""Refusals: counted for the metrics, and told to the log once a second at most, however many there are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from prometheus_client.core import CounterMetricFamily, Metric

from tailorbird.service.observe import journal

QUIET_SECONDS = 1.0


class Refusals:
    """What the guards of one server refused.

    A refused request costs a stranger little; the line that it leaves in the log must not cost the server more.

    Args:
        clock: seconds, for the time between two lines.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By protocol and reason; the reasons are few."""
        self._clock = clock
        self._told = -QUIET_SECONDS
        self._silent = 0

    def note(self, protocol: str, why: str, address: str = "") -> None:
        """Count one.

        Args:
            protocol: ``http`` or ``grpc``.
            why: for people; what stands before `` of `` is the reason that is counted.
            address: of the client, where it is known.
        """
        self.counts[protocol, why.partition(" of ")[0]] += 1
        self._silent += 1
        now = self._clock()
        if now - self._told < QUIET_SECONDS:
            return
        journal.record("requests refused", level="warning", protocol=protocol, reason=why, count=self._silent,
                       client=address or None)  # fmt: skip
        self._told = now
        self._silent = 0

    def family(self) -> Metric:
        """The counts as a metric."""
        words = "Requests that no guard let in"
        found = CounterMetricFamily("tailorbird_refused_requests", words, labels=("protocol", "reason"))
        for (protocol, reason), count in sorted(self.counts.items()):
            found.add_metric((protocol, reason), count)
        return found
