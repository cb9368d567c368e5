"""Measuring: single runs, inputs in turn, warm first."""

import time
from typing import Any

from tailorbird.builder.search import measure as room
from tailorbird.builder.search.measure import look, measure, timed, together


def test_inputs_are_taken_in_turn() -> None:
    seen: list[Any] = []
    timed(lambda one: seen.append(one["x"]) or {}, [{"x": 1}, {"x": 2}], 5)  # type: ignore[dict-item, func-returns-value]
    assert seen == [1, 2, 1, 2, 1]


def test_milliseconds_of_each_run() -> None:
    samples = timed(lambda _: time.sleep(0.01) or {}, [{}], 3)  # type: ignore[func-returns-value]
    assert len(samples) == 3
    assert all(10 <= sample < 100 for sample in samples)


def test_a_cold_first_run_is_not_counted() -> None:
    runs = []

    def slow_at_first(_: Any) -> dict[str, Any]:
        runs.append(1)
        time.sleep(0.3 if len(runs) == 1 else 0.001)
        return {}

    assert max(look([slow_at_first], [{}])) < 300


def test_fast_engines_are_run_often_and_slow_ones_enough() -> None:
    assert len(measure([lambda _: {}], [{}])) == room.MOST_RUNS
    assert len(measure([lambda _: time.sleep(0.1) or {}], [{}])) == room.LEAST_RUNS  # type: ignore[func-returns-value]


def test_instances_run_at_the_same_time() -> None:
    running, most = [0], [0]

    def run(_: Any) -> dict[str, Any]:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1
        return {}

    samples = together([run, run, run], [{}], 4)
    assert len(samples) == 12
    assert most[0] == 3
