"""Waiting pays where the formula says so, and the formula is checked against a count of every row's time."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tailorbird.serving.batching.waiting import GRAIN, Arrivals, worthwhile


def every(gap, rows=1):
    """Arrivals that came regularly for long."""
    arrivals = Arrivals(1.0)
    for count in range(200):
        arrivals.note(1000 + count * gap, rows)
    return arrivals


def affine(fixed, each):
    return lambda rows: fixed + each * rows


def test_a_fixed_cost_shared_is_worth_a_short_wait():
    assert worthwhile(affine(0.050, 0.001), 1, 7, every(0.004), 0.025) > 0


def test_rows_that_cost_in_proportion_are_never_waited_for():
    assert worthwhile(affine(0.0, 0.010), 1, 7, every(0.002), 0.005) == 0.0


def test_nobody_is_waited_for_who_comes_too_seldom():
    assert worthwhile(affine(0.050, 0.001), 1, 7, every(0.030), 0.025) == 0.0


def test_the_more_wait_already_the_less_it_pays():
    waits = [worthwhile(affine(0.050, 0.001), rows, 64, every(0.008), 0.025) > 0 for rows in range(1, 12)]
    assert waits[0]
    assert not waits[-1]
    assert waits == sorted(waits, reverse=True)


def test_less_than_a_timers_grain_is_not_waited():
    assert worthwhile(affine(0.0015, 0.0), 1, 7, every(0.0001), 0.0009) == 0.0
    assert worthwhile(affine(0.0150, 0.0), 1, 7, every(0.0001), 0.0075) >= GRAIN


def test_no_longer_than_the_bound_nor_than_a_run():
    assert 0 < worthwhile(affine(0.050, 0.0), 1, 1000, every(0.002), 0.004) <= 0.004
    assert 0 < worthwhile(affine(0.010, 0.0), 1, 1000, every(0.001), 9.0) <= 0.010


def test_a_lone_client_with_many_rows_is_one_request_at_a_time():
    # Eight rows every 20 ms are 400 rows a second, yet nobody comes within half a run of 20 ms.
    assert worthwhile(affine(0.018, 0.00025), 8, 24, every(0.020, rows=8), 0.009) == 0.0


def test_a_quiet_hour_is_soon_forgotten():
    arrivals = every(0.001)
    arrivals.note(1e6, 1)
    assert arrivals.gap == pytest.approx(1 / 8, rel=0.01)
    for count in range(40):
        arrivals.note(1e6 + 0.001 * count, 1)
    assert arrivals.gap < 0.002


def test_gaps_of_nothing_are_no_division_by_zero():
    arrivals = every(0.0)
    for _ in range(10000):
        arrivals.note(0.0, 1)
    assert worthwhile(affine(0.050, 0.001), 1, 7, arrivals, 0.025) > 0


@given(st.integers(1, 3), st.floats(0.02, 0.2), st.floats(0.0, 0.001), st.floats(0.02, 0.2))
def test_what_it_promises_to_save_is_saved(rows, fixed, each, share):
    """Where several requests come during a run: elsewhere waiting seldom pays, and hardly an example would count."""
    run, arrivals = affine(fixed, each), every(share * fixed)
    pause = worthwhile(run, rows, 64, arrivals, fixed / 2)
    assume(pause > 0)
    more = min(64, max(1, round(pause / arrivals.gap)))
    came = [pause * (number + 0.5) / more for number in range(more)]  # evenly within the pause
    now = rows * run(rows) + sum(run(rows) - at + run(more) for at in came)
    after = rows * (pause + run(rows + more)) + sum(pause - at + run(rows + more) for at in came)
    assert after < now
