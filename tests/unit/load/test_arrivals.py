"""Arrivals: Poisson by its statistics, traces by their words."""

from pathlib import Path

import numpy as np
import pytest

from tailorbird.domain.errors import UsageError
from tailorbird.load.arrivals import Arrival, poisson, recorded, steady


def test_poisson_has_its_rate_and_exponential_gaps() -> None:
    times = np.array([one.at for one in poisson(500, 20, seed=1)])
    gaps = np.diff(times)
    assert len(times) == pytest.approx(10_000, rel=0.04)  # four standard deviations
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # what tells exponential gaps from steady ones
    assert times.max() < 20


def test_equal_seeds_give_equal_arrivals() -> None:
    assert poisson(50, 2, seed=7) == poisson(50, 2, seed=7) != poisson(50, 2, seed=8)


def test_steady_is_steady() -> None:
    assert [one.at for one in steady(4, 1)] == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_a_loop_needs_rate_and_duration(rate: float, seconds: float) -> None:
    with pytest.raises(UsageError, match="an open loop needs a rate and a duration"):
        poisson(rate, seconds)


def test_a_trace_begins_at_zero_and_is_in_order(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"at": 12.5, "rows": 3, "model": "m"}\n{"at": 10.0, "rows": 0}\n')
    assert recorded(path) == [Arrival(0.0, 1), Arrival(2.5, 3)]


@pytest.mark.parametrize("text", ["", "nonsense\n", '{"rows": 1}\n', '{"at": "x"}\n', "\xff"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="trace"):
        recorded(path)


def test_a_missing_trace_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="serve --record"):
        recorded(tmp_path / "none")
