"""Tests of ``domain.latency``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.latency import Latency

SAMPLES = st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=50)


@given(SAMPLES)
def test_statistics_are_ordered_and_inside_the_samples(samples: list[float]) -> None:
    found = Latency.of(samples)
    places = [found.min, found.p25, found.median, found.p75, found.p90, found.p99]
    assert places == sorted(places)
    assert found.runs == len(samples)
    assert found.spread >= 0
    assert found.min == pytest.approx(min(samples), abs=1e-6)
    assert found.median == pytest.approx(float(np.median(samples)), abs=1e-6)
    assert found.p99 <= max(samples) + 1e-6


def test_statistics_of_known_samples() -> None:
    found = Latency.of(list(range(101)))
    assert found == Latency(min=0, p25=25, median=50, p75=75, p90=90, p99=99, runs=101)
    assert found.spread == 25


def test_one_slow_run_moves_neither_median_nor_spread() -> None:
    calm = Latency.of([1.0] * 99 + [1.0])
    shaken = Latency.of([1.0] * 99 + [1000.0])
    assert (shaken.median, shaken.spread) == (calm.median, calm.spread)


def test_an_order_of_samples_does_not_matter() -> None:
    assert Latency.of([3, 1, 2]) == Latency.of([1, 2, 3])
