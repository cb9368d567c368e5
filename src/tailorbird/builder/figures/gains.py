"""Gains: rows a second and scores of a table's rows, by the objective of the build."""

from __future__ import annotations

from collections.abc import Sequence

from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.objective import Goal
from tailorbird.domain.outcome import Outcome

LATENCY = Goal()
"""One request at a time: the objective where nobody said another."""


def rate(row: LatencyRow) -> float:
    """Rows a second of all instances together."""
    return 1e3 * row.rows * row.instances / max(row.latency.median, 1e-6)


def shown_rate(outcome: Outcome, goal: Goal = LATENCY) -> float | None:
    """Rows a second to show for it: at the deciding row for throughput, otherwise the most at any place."""
    row = outcome.deciding_row(goal)
    if row is None:
        return None
    return rate(row) if goal.is_throughput else max(map(rate, outcome.own_rows))


def has_rates(outcomes: Sequence[Outcome], goal: Goal = LATENCY) -> bool:
    """Whether rows a second say more than milliseconds do: somewhere there are several rows or instances."""
    return goal.is_throughput or any(row.rows * row.instances > 1 for one in outcomes for row in one.own_rows)


def time_title(goal: Goal) -> str:
    """The heading above :func:`time_of`."""
    return "ms (rows)" if goal.is_throughput else "median ms"


def time_of(row: LatencyRow, goal: Goal) -> str:
    """The median to show for a row; with its rows where engines are compared at batches of their own."""
    return ms(row.latency.median) + (f" ({row.rows})" if goal.is_throughput else "")


def ms(value: float) -> str:
    """Milliseconds with three significant digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def metric_of(outcomes: Sequence[Outcome]) -> str:
    """The metric that labels were judged by, without its module; empty where none was."""
    named = next((one.gate.score for one in outcomes if one.gate and one.gate.score), "")
    return named.partition(" ")[0].rpartition(":")[2]


def score_of(outcome: Outcome) -> str:
    """Its worst score against FP32's, ``97.8 of 98.1``, or an empty text."""
    return outcome.gate.score.partition(" ")[2] if outcome.gate else ""
