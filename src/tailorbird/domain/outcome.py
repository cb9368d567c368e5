"""Outcomes: a row of the table, what became of one candidate and why."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tailorbird.domain.budget import GateReport
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.latency import LatencyRow


class Status(StrEnum):
    """How a candidate ended."""

    CHOSEN = "chosen"
    SLOWER = "slower"
    STOPPED = "stopped early"
    REFUSED = "gate failed"
    FAILED = "failed"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    NOT_TRIED = "not tried"


class Outcome(msgspec.Struct, frozen=True):
    """What was measured of one candidate, and the reason it won or lost."""

    candidate: Candidate
    status: Status
    reason: str
    latency: tuple[LatencyRow, ...] = ()
    gate: GateReport | None = None
    executed: dict[str, int] = {}
    build_seconds: float = 0.0
    engine_bytes: int = 0

    @property
    def median(self) -> float | None:
        """Median milliseconds at the profile's opt shape, or None when it was not measured."""
        return next((row.latency.median for row in self.latency if row.edge == "opt"), None)
