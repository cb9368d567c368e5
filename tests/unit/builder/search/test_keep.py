"""How much to keep in float."""

import pytest

from tailorbird.builder.search.keep import Bracket, predicted


@pytest.mark.parametrize(
    ("noises", "count"),
    [
        ([0.5, 0.004, 0.003, 0.002], 1),
        ([0.5, 0.02, 0.003, 0.002], 2),
        ([0.001, 0.001, 0.001], 1),  # predicted to hold with none kept: but none kept was refused
        ([0.5, 0.5, 0.5], 2),  # nothing short of all would do: as much as can be kept
        ([0.5], 1),
    ],
)
def test_errors_of_what_is_not_kept_add_up(noises: list[float], count: int) -> None:
    assert predicted([{"y": noise} for noise in noises], allowed=0.01) == count


def test_every_output_must_hold() -> None:
    noises = [{"y": 0.5, "z": 0.0}, {"y": 0.0, "z": 0.5}, {"y": 0.001, "z": 0.001}]
    assert predicted(noises, allowed=0.01) == 2


def search(needed: int, groups: int, start: int) -> tuple[list[int], int]:
    """The counts tried, and the least that held, where ``needed`` groups hold the budget."""
    bracket, count, tried = Bracket(0, groups), start, []
    while count is not None and len(tried) < 20:
        tried.append(count)
        bracket = bracket.with_result(count, refused=count < needed)
        count = bracket.following(refused=count < needed)  # type: ignore[assignment]
    return tried, bracket.many


@pytest.mark.parametrize("needed", range(1, 12))
@pytest.mark.parametrize("start", range(1, 12))
def test_the_least_that_holds_is_found_from_any_start(needed: int, start: int) -> None:
    tried, found = search(needed, 12, start)
    assert found == needed
    assert len(tried) == len(set(tried)) <= 7


def test_a_good_prediction_needs_two_attempts() -> None:
    assert search(3, 12, 3)[0][:2] == [3, 1]
    assert search(1, 12, 1)[0] == [1]
