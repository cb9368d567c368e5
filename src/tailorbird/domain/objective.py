"""The objective: what "fastest" means, as one cost in milliseconds that every decision compares."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from tailorbird.domain.latency import LatencyRow


class Objective(StrEnum):
    """What the fastest engine is: one request at a time, or rows a second."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


class Goal(msgspec.Struct, frozen=True):
    """Latency at the opt place, or milliseconds a row at the best place that keeps to the SLO."""

    objective: Objective = Objective.LATENCY
    slo_ms: float | None = None

    @property
    def is_throughput(self) -> bool:
        """Whether rows a second count, rather than one request at a time."""
        return self.objective is Objective.THROUGHPUT

    def best(self, rows: Sequence[LatencyRow]) -> LatencyRow | None:
        """The row that decides: opt, or of the rows within the SLO the one with most rows a second."""
        if not self.is_throughput:
            return next((row for row in rows if row.edge == "opt"), None)
        within = [row for row in rows if self.slo_ms is None or row.latency.p99 <= self.slo_ms]
        return min(within, key=lambda row: self.cost_of(row.latency.median, row), default=None)

    def cost(self, rows: Sequence[LatencyRow]) -> float | None:
        """Milliseconds, lower is better; None where nothing was measured or nothing keeps to the SLO."""
        best = self.best(rows)
        return None if best is None else self.cost_of(best.latency.median, best)

    def least(self, rows: Sequence[LatencyRow]) -> float | None:
        """The cost of the fastest run seen at the deciding row: what noise moves least."""
        best = self.best(rows)
        return None if best is None else self.cost_of(best.latency.min, best)

    def cost_of(self, milliseconds: float, row: LatencyRow) -> float:
        """A run's milliseconds as cost: as they are, or for each row of all instances together."""
        return milliseconds / (row.rows * row.instances) if self.is_throughput else milliseconds
