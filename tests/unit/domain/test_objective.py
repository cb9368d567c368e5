"""The objective: one cost that every decision compares."""

import pytest

from tailorbird.builder.cases.places import Place
from tailorbird.builder.search.measure import row_of
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.objective import Goal, Objective

OPT, BATCH, MOST = (Place(edge, {"x": (rows, 4)}, rows) for edge, rows in (("opt", 1), ("batch4", 4), ("max", 16)))
ROWS = (row_of(OPT, 1, [1.0, 1.2]), row_of(BATCH, 1, [2.0, 2.0]), row_of(MOST, 1, [12.0, 12.0]))


def throughput(slo_ms: float | None = None) -> Goal:
    return Goal(Objective.THROUGHPUT, slo_ms)


def best(goal: Goal) -> LatencyRow:
    found = goal.best(ROWS)
    assert found is not None
    return found


def test_latency_is_the_median_at_opt() -> None:
    assert best(Goal()).edge == "opt"
    assert Goal().cost(ROWS) == pytest.approx(1.1)
    assert Goal().least(ROWS) == 1.0
    assert Goal().cost(ROWS[1:]) is None


def test_throughput_is_the_time_of_a_row_at_the_best_batch() -> None:
    assert best(throughput()).edge == "batch4"
    assert throughput().cost(ROWS) == 0.5


def test_instances_share_the_time() -> None:
    assert throughput().cost([row_of(BATCH, 2, [3.0])]) == 3 / 8


def test_a_batch_over_the_slo_does_not_count() -> None:
    assert best(throughput(1.5)).edge == "opt"
    assert throughput(0.5).cost(ROWS) is None
