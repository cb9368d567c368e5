"""Choosing: speed beyond the noise, and simplicity within it."""

import msgspec
import pytest

from tailorbird.builder.search.choose import (
    FINAL_MARGIN,
    MOST_FINALISTS,
    beats,
    cannot_win,
    choose,
    decided,
    finalists,
    gain_and_noise,
)
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation
from tailorbird.domain.target import Target


def candidate(precision: str = "fp32") -> Candidate:
    target = Target("ort", "cpu", "avx2")
    return Candidate(target, Precision(precision), Profile.static({"x": (1,)}), ShapeMode.STATIC, 1)


def chosen(rounds: dict[str, list[float]], **precisions: str) -> tuple[str, str]:
    candidates = {name: candidate(precisions.get(name, "fp32")) for name in rounds}
    choice = choose(candidates, rounds)
    return choice.winner, choice.reason


def test_noise_by_hand() -> None:
    # Differences 1, 2, 3: median 2, median absolute deviation 1, twice 1.2533 * 1.4826 / sqrt(3).
    assert gain_and_noise([1, 1, 1], [2, 3, 4]) == pytest.approx((2.0, 2.1456), abs=1e-4)
    assert gain_and_noise([1], [2]) == (1.0, 0.0)


def test_rounds_are_paired_so_a_slow_moment_counts_for_both() -> None:
    assert beats([1, 9, 1, 9], [1.1, 9.1, 1.1, 9.1])
    assert not beats([1, 9, 1, 9], [9, 1.1, 9, 1.1])
    assert not beats([1, 1], [1, 1])


def test_a_first_look_stops_only_what_is_far_behind_at_its_best() -> None:
    assert not cannot_win(99, None)
    assert not cannot_win(1.5, 1.0)
    assert cannot_win(1.51, 1.0)
    assert cannot_win(1.01, 1.0, margin=1.0)


def test_finalists_are_those_near_the_best_and_not_too_many() -> None:
    assert finalists({"a": FINAL_MARGIN + 0.01, "b": 1.0, "c": FINAL_MARGIN}) == ["b", "c"]
    assert finalists({str(n): 1 + n / 100 for n in range(9)}) == list("0123456789"[:MOST_FINALISTS])


def test_the_only_one_wins() -> None:
    assert chosen({"a": [1.0]}) == ("a", "no other that passed came within 1.5x of it")


def test_the_faster_one_wins_and_the_reason_has_the_numbers() -> None:
    winner, reason = chosen({"a": [2, 2.1, 2], "b": [1, 1.1, 1]})
    assert (winner, reason) == ("b", "2.00x as fast as a, beyond the noise (1 > 0 ms)")


def test_among_equals_the_lower_median_wins() -> None:
    winner, reason = chosen({"a": [1.0, 1.2, 1.1], "b": [1.2, 1.0, 1.11]})
    assert winner == "a"
    assert reason.startswith("least median; level with b within the noise (0.01 against ")


def test_a_lower_precision_must_win_beyond_the_noise() -> None:
    level = {"full": [1.0, 1.2, 1.1, 1.0], "half": [1.05, 1.0, 1.1, 0.99]}
    winner, reason = chosen(level, half="bf16")
    assert winner == "full"
    assert reason.startswith("plainer; level with half within the noise (")


def test_a_lower_precision_that_is_faster_wins() -> None:
    assert chosen({"full": [1.0, 1.1, 1.0], "half": [0.5, 0.6, 0.5]}, half="bf16")[0] == "half"


def test_a_lower_precision_must_beat_each_higher_one() -> None:
    rounds = {"int8": [0.90, 0.91, 0.90], "bf16": [0.90, 0.905, 0.91], "fp32": [1.0, 1.01, 1.0]}
    assert chosen(rounds, int8="int8", bf16="bf16")[0] == "bf16"


def test_what_keeps_more_in_float_wins_among_equals() -> None:
    plain = candidate("int8")
    candidates = {
        str(count): msgspec.structs.replace(plain, quantisation=Quantisation("nncf", kept=("layer",) * count))
        for count in (0, 2, 5)
    }
    level = {"0": [1.0, 1.2, 1.1, 1.0], "2": [1.05, 1.0, 1.1, 1.0], "5": [1.01, 1.1, 1.05, 1.0]}
    assert choose(candidates, level).winner == "5"
    level["2"] = [0.5, 0.5, 0.5, 0.5]
    assert choose(candidates, level).winner == "2"


def test_the_fastest_of_the_highest_precision_wins_when_no_lower_one_earns_it() -> None:
    rounds = {
        "half": [0.99, 1.05, 1.0, 1.03, 1.0],
        "slow": [1.1, 1.11, 1.1, 1.1, 1.1],
        "full": [1.0, 1.04, 1.005, 1.0, 1.02],
    }
    assert chosen(rounds, half="bf16")[0] == "full"


def test_the_baseline_stays_when_nothing_is_faster_beyond_the_noise() -> None:
    rounds = {"usual": [1.0, 1.1, 1.05, 1.0], "ours": [1.02, 1.0, 1.04, 1.01]}
    choice = choose({name: candidate() for name in rounds}, rounds, baseline="usual")
    assert choice.winner == "usual"
    assert choice.reason.startswith("nothing is faster beyond the noise; level with ours within the noise (")


def test_the_baseline_loses_to_what_is_faster_beyond_the_noise() -> None:
    rounds = {"usual": [1.0, 1.1, 1.05], "ours": [0.8, 0.9, 0.85]}
    assert choose({name: candidate() for name in rounds}, rounds, baseline="usual").winner == "ours"


def test_a_race_is_decided_by_a_clear_leader_or_by_little_noise() -> None:
    assert decided({"a": [1.0, 1.0, 1.0]})
    assert decided({"a": [1.0, 1.01, 1.0], "b": [2.0, 2.1, 2.0]})
    assert decided({"a": [1.0, 1.001, 1.0], "b": [1.0, 1.0, 1.001]})
    assert not decided({"a": [1.0, 1.2, 1.1], "b": [1.2, 1.0, 1.11]})
