"""Outcomes: a row of the table, what became of one candidate and why."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tailorbird.domain.budget import GateReport
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.objective import Goal


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
    NOT_RUN = "not run"
    """Compiled for a device that is not here."""


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

    @property
    def own_rows(self) -> tuple[LatencyRow, ...]:
        """Rows measured with the candidate's own instances: the chosen engine's table holds others, too."""
        return tuple(row for row in self.latency if row.instances == self.candidate.instances)

    def deciding_row(self, goal: Goal) -> LatencyRow | None:
        """The row it is compared by; the first look's where no batch keeps to the SLO, None where none ran."""
        return goal.best(self.own_rows) or next(iter(self.own_rows), None)

    def cost(self, goal: Goal) -> float | None:
        """Milliseconds, lower is better: of a run, or of a row for throughput. None when nothing was measured."""
        row = self.deciding_row(goal)
        return None if row is None else goal.cost_of(row.latency.median, row)
