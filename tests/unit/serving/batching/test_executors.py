"""Which executor is free, and when a newcomer would start."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.serving.batching.executors import Slots


class Still:
    """An executor that is only looked at."""

    def __init__(self, alive=True):
        self.alive = alive


class Plain:
    """One that does not say whether it is alive."""


def slots(*busy_for):
    """Executors that are busy for so many seconds, or idle (0), or dead (None)."""
    found = Slots([Still(alive=seconds is not None) for seconds in busy_for])
    now = time.monotonic()
    for slot, seconds in zip(found.all, busy_for, strict=True):
        slot.busy = bool(seconds)
        slot.until = now + (seconds or 0.0)
    return found


@pytest.mark.parametrize(
    ("busy_for", "work", "start"),
    [
        ((0,), 0.0, 0.0),
        ((0,), 3.0, 3.0),
        ((5.0,), 0.0, 5.0),
        ((5.0,), 3.0, 8.0),
        ((5.0, 0), 0.0, 0.0),
        ((5.0, 0), 3.0, 3.0),
        ((5.0, 0), 7.0, 6.0),
        ((5.0, 1.0, 3.0), 2.0, 3.0),
        ((5.0, 1.0, 3.0), 6.0, 5.0),
        ((5.0, 1.0, 3.0), 9.0, 6.0),
        ((None, 2.0), 4.0, 6.0),
        ((None,), 4.0, 0.0),
    ],
)
def test_work_ahead_is_shared_by_those_alive_as_they_become_free(busy_for, work, start):
    assert slots(*busy_for).start_after(work) == pytest.approx(start, abs=0.02)


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=6), st.floats(0, 1000))
def test_by_then_exactly_the_work_has_been_done(busy_for, work):
    start = slots(*busy_for).start_after(work)
    done = sum(max(0.0, start - seconds) for seconds in busy_for)
    assert done == pytest.approx(work, abs=0.5, rel=1e-3)


def test_the_first_that_is_idle_and_alive_is_free():
    found = slots(1.0, None, 0, 0)
    assert found.free() is found.all[2]
    assert (found.alive, found.busy) == (3, 1)
    assert not found.only_free()
    assert slots(1.0, None).free() is None
    assert slots(1.0, None, 0).only_free()


def test_one_that_does_not_say_counts_as_alive():
    found = Slots([Plain()])
    assert found.alive == 1
    assert found.free() is found.all[0]
