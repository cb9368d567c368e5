"""Gains follow the objective."""

import pytest

from tailorbird.builder.figures import gains
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.manifest import speedup
from tailorbird.domain.objective import Goal, Objective
from tailorbird.domain.outcome import Outcome, Status
from tests.unit.builder.figures import builds

ROWS_A_SECOND = Goal(Objective.THROUGHPUT)


def outcome(*rows: LatencyRow, status: Status = Status.SLOWER, runtime: str = "openvino") -> Outcome:
    return Outcome(builds.candidate(runtime, "fp32"), status, "", rows)


def test_rows_of_more_instances_than_its_own_are_not_its_own() -> None:
    chosen = outcome(builds.row(4.0), builds.row(5.0, instances=2))
    assert chosen.own_rows == chosen.latency[:1]
    assert chosen.cost(ROWS_A_SECOND) == pytest.approx(4.0)


def test_a_rate_counts_rows_and_instances() -> None:
    assert gains.rate(builds.row(4.0, rows=8, instances=2)) == pytest.approx(4000.0)


def test_the_gain_is_of_what_was_aimed_at() -> None:
    chosen = outcome(builds.row(4.0), builds.row(8.0, "max", 8), status=Status.CHOSEN)
    baseline = outcome(builds.row(2.0), builds.row(16.0, "max", 8), runtime="onnxruntime")
    name = baseline.candidate.name
    assert speedup((chosen, baseline), name, Goal()) == pytest.approx(0.5)
    assert speedup((chosen, baseline), name, ROWS_A_SECOND) == pytest.approx(2.0)
    assert speedup((chosen,), name, Goal()) is None


def test_one_that_keeps_to_no_slo_is_told_by_its_first_row() -> None:
    one = outcome(builds.row(9.0, "max", 4), builds.row(5.0))
    assert one.deciding_row(Goal(Objective.THROUGHPUT, slo_ms=1.0)) == one.latency[0]
    assert outcome().deciding_row(ROWS_A_SECOND) is None


def test_rates_are_shown_where_they_say_more_than_milliseconds() -> None:
    single, batch = outcome(builds.row(4.0)), outcome(builds.row(4.0), builds.row(9.0, "max", 8))
    assert not gains.has_rates([single])
    assert gains.has_rates([single], ROWS_A_SECOND)
    assert gains.has_rates([single, batch])
    assert gains.shown_rate(batch) == pytest.approx(8e3 / 9)


def test_scores_are_told_without_their_module() -> None:
    report = builds.gate(30.0, 77.0)
    table = [Outcome(builds.candidate("openvino", "fp32"), Status.SLOWER, "", (), report)]
    assert (gains.metric_of(table), gains.score_of(table[0])) == ("top1", "77 of 78.12")
    assert gains.metric_of([outcome()]) == gains.score_of(outcome()) == ""
