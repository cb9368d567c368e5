"""Gains: cost, rows a second and speed-up of a table's rows, by the objective of the build."""

from __future__ import annotations

from collections.abc import Sequence

from tailorbird.builder.search.objective import Goal
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.outcome import Outcome, Status

LATENCY = Goal()
"""One request at a time: the objective where nobody said another."""


def own_rows(outcome: Outcome) -> tuple[LatencyRow, ...]:
    """Rows measured with the candidate's own instances: the chosen engine's table holds others, too."""
    return tuple(row for row in outcome.latency if row.instances == outcome.candidate.instances)


def deciding_row(outcome: Outcome, goal: Goal = LATENCY) -> LatencyRow | None:
    """The row by which it is compared; the first look's where no batch keeps to the SLO, None where none ran."""
    rows = own_rows(outcome)
    return goal.best(rows) or next(iter(rows), None)


def cost(outcome: Outcome, goal: Goal = LATENCY) -> float | None:
    """Milliseconds, lower is better: of a run, or of a row for throughput. None when nothing was measured."""
    row = deciding_row(outcome, goal)
    return None if row is None else goal.cost_of(row.latency.median, row)


def rate(row: LatencyRow) -> float:
    """Rows a second of all instances together."""
    return 1e3 * row.rows * row.instances / max(row.latency.median, 1e-6)


def shown_rate(outcome: Outcome, goal: Goal = LATENCY) -> float | None:
    """Rows a second to show for it: at the deciding row for throughput, otherwise the most at any place."""
    row = deciding_row(outcome, goal)
    if row is None:
        return None
    return rate(row) if goal.is_throughput else max(map(rate, own_rows(outcome)))


def has_rates(outcomes: Sequence[Outcome], goal: Goal = LATENCY) -> bool:
    """Whether rows a second say more than milliseconds do: somewhere there are several rows or instances."""
    return goal.is_throughput or any(row.rows * row.instances > 1 for one in outcomes for row in own_rows(one))


def gain(outcomes: Sequence[Outcome], baseline: str, goal: Goal = LATENCY) -> float | None:
    """The baseline's cost over the chosen engine's, both measured in turn; None when either is missing."""
    theirs = next((cost(one, goal) for one in outcomes if one.candidate.name == baseline), None)
    ours = next((cost(one, goal) for one in outcomes if one.status is Status.CHOSEN), None)
    return theirs / ours if theirs and ours else None
