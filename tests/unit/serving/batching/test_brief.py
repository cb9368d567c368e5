"""Which runs the event loop does itself: by the table, as corrected by what is seen, with a way back."""

import pytest

from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.serving.batching.brief import BRIEF_SECONDS, PROBE, Brief
from tailorbird.serving.batching.costs import Costs, CostTable


def brief(*points, most=8):
    """Of an engine whose latency table has these (rows, milliseconds)."""
    rows = [LatencyRow("opt", {"x": (count, 4)}, count, 1, Latency(*[ms] * 6, runs=9)) for count, ms in points]
    return Brief(Costs(CostTable(rows), 4), most)


@pytest.mark.parametrize(
    ("points", "rows"),
    [
        ([(1, 0.02), (8, 0.09)], 8),
        ([(1, 0.1), (8, 0.8)], 2),
        ([(1, 0.3), (8, 0.9)], 0),
        ([], 0),
    ],
)
def test_the_table_says_how_many_rows_are_brief(points, rows):
    found = brief(*points)
    assert found.rows == rows
    assert [found.allows(count) for count in range(1, 9)] == [count <= rows for count in range(1, 9)]


def test_runs_that_have_become_long_go_to_the_thread_but_for_a_probe():
    found = brief((1, 0.02), (8, 0.02))
    for _ in range(200):
        found.observe(1, 20 * BRIEF_SECONDS)
    assert found.rows == 0
    allowed = [found.allows(1) for _ in range(3 * PROBE)]
    assert sum(allowed) == 3


def test_what_is_short_again_comes_back():
    found = brief((1, 0.02), (8, 0.02))
    for _ in range(100):
        found.observe(1, 20 * BRIEF_SECONDS)
    assert found.rows == 0
    for _ in range(100):
        found.observe(1, 20e-6)
    assert found.rows == 8


def test_a_run_that_was_interrupted_now_and_then_says_nothing():
    found = brief((1, 0.05), (8, 0.05))
    for number in range(1000):
        found.observe(1, 0.05 if number % 3 == 0 else 45e-6)
    assert found.rows == 8


def test_what_the_table_calls_long_is_never_probed():
    found = brief((1, 0.02), (8, 0.9))
    assert not any(found.allows(8) for _ in range(2 * PROBE))


def test_what_has_more_rows_than_a_run_takes_is_never_probed():
    """It is to be cut: run whole it would be refused as outside the engine's profile."""
    found = brief((1, 0.02), (8, 0.02))
    for _ in range(200):
        found.observe(1, 20 * BRIEF_SECONDS)
    assert found.rows == 0
    assert not any(found.allows(9) for _ in range(3 * PROBE))
