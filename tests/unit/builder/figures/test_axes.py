"""Axes end at round numbers, hold what they must, and say what lies beyond."""

import pytest

from tailorbird.builder.figures.axes import axis


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 3.7), (9.1, 61.0), (77.3, 78.2), (-3.0, 0.4), (0.0, 2e-3), (5.0, 900.0)]
)
def test_the_ends_hold_what_must_be_on_it(low: float, high: float) -> None:
    found = axis(low, high, (0.0, 100.0), [low, high])
    assert found.low <= low < high <= found.high
    assert 3 <= len(found.ticks()) <= 9


def test_places_are_linear_between_start_and_stop() -> None:
    found = axis(0.0, 10.0, (400.0, 0.0), [0.0, 10.0])
    assert [found.place(value) for value in (0.0, 5.0, 10.0)] == [400.0, 200.0, 0.0]


def test_what_lies_beyond_is_drawn_at_the_end_and_the_tick_says_so() -> None:
    found = axis(0.0, 60.0, (0.0, 60.0), [-40.0, 20.0, 120.0])
    assert (found.place(120.0), found.place(-40.0)) == (60.0, 0.0)
    texts = [text for _, text in found.ticks()]
    assert (texts[0], texts[1], texts[-1]) == ("≤ 0", "10", "≥ 60")
