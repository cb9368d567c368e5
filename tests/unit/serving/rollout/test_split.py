"""The split: exact at any moment, and left to chance within each group."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.serving.rollout.split import COMPARED, Seat, Split


@given(st.floats(0.001, 0.999), st.integers(0, 2**32), st.integers(1, 3000))
def test_at_any_moment_each_side_has_had_its_share_but_for_one_request(weight, seed, requests):
    split = Split(weight, random.Random(seed))
    taken = 0
    for number in range(1, requests + 1):
        taken += split.seat().canary
        assert abs(taken - number * weight) <= 1 + 1e-6


@pytest.mark.parametrize(("weight", "canary"), [(0.0, False), (1.0, True)])
def test_all_or_nothing_has_nothing_to_compare(weight, canary):
    split = Split(weight)
    assert {split.seat() for _ in range(100)} == {Seat(canary, odd=False, compared=False)}
    assert split.size == 0


@pytest.mark.parametrize(("weight", "size"), [(0.1, 10), (0.5, 2), (0.9, 10), (0.01, COMPARED)])
def test_of_each_group_one_is_odd_and_some_are_compared_with_it(weight, size):
    split = Split(weight, random.Random(1))
    for _ in range(20):
        split.deal()
        assert split.size == size
        seats = [split.seat() for _ in range(round(1 / min(weight, 1 - weight)))]
        assert split.begins
        (odd,) = [seat for seat in seats if seat.odd]
        assert odd == Seat(canary=weight <= 0.5, odd=True, compared=True)
        assert sum(seat.compared for seat in seats) == size
        assert {seat.canary for seat in seats if not seat.odd} == {weight > 0.5}


def test_clients_that_ask_in_a_rhythm_meet_the_canary_like_any_other():
    """Every tenth request is of a kind of its own, and the canary takes every tenth."""
    split = Split(0.1, random.Random(2))
    kinds = Counter(number % 10 for number in range(20_000) if split.seat().canary)
    assert sorted(kinds) == list(range(10))
    assert all(120 <= count <= 280 for count in kinds.values())  # of 200 each


def test_the_same_chance_deals_the_same():
    one, other, third = (Split(0.3, random.Random(seed)) for seed in (5, 5, 6))
    dealt = [one.seat() for _ in range(500)]
    assert dealt == [other.seat() for _ in range(500)]
    assert dealt != [third.seat() for _ in range(500)]
