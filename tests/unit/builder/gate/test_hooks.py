"""What metrics are made of: words, characters and boxes, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.builder.gate.hooks import character_accuracy, levenshtein, mean_average_precision, word_accuracy
from tailorbird.domain.errors import UsageError

TEXT = st.text("abc", max_size=8)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)],
)
def test_levenshtein(one: str, other: str, distance: int) -> None:
    assert levenshtein(one, other) == distance


@given(TEXT, TEXT, TEXT)
def test_levenshtein_is_a_distance(one: str, other: str, third: str) -> None:
    assert levenshtein(one, other) == levenshtein(other, one)
    assert (levenshtein(one, other) == 0) == (one == other)
    assert levenshtein(one, third) <= levenshtein(one, other) + levenshtein(other, third)


def test_word_accuracy_is_one_less_the_word_error_rate_of_all_texts() -> None:
    assert word_accuracy(["the cat sat", "on mat"], ["the cat sat", "on the mat"]) == pytest.approx(100 * (1 - 1 / 6))
    assert word_accuracy(["a  b\n"], ["a b"]) == 100.0
    assert word_accuracy(["x y z w"], ["a"]) == -300.0
    assert word_accuracy([""], ["a b"]) == 0.0
    assert word_accuracy(np.array([b"a b"], object), np.array(["a c"])) == 50.0


def test_character_accuracy_counts_spaces() -> None:
    assert character_accuracy(["ab c"], ["abc d"]) == pytest.approx(60.0)


def test_texts_that_cannot_be_held_against_one_another_are_refused() -> None:
    with pytest.raises(UsageError, match="texts differ in number: got 1, expected 2"):
        word_accuracy(["a"], ["a", "b"])
    with pytest.raises(UsageError, match="the references hold no word: expected one or more"):
        word_accuracy(["a"], [" "])
    with pytest.raises(UsageError, match="the references hold no character"):
        character_accuracy([], [])


BOX = [0.0, 0, 10, 10]
FAR = [50.0, 50, 60, 60]


def found(*boxes: list[float]) -> np.ndarray:
    return np.array(boxes, np.float32)


@pytest.mark.parametrize(
    ("answers", "truth", "points"),
    [
        ([found([*BOX, 0.9, 1])], [found([*BOX, 1])], 100.0),
        ([found([*BOX, 0.9, 2])], [found([*BOX, 1])], 0.0),
        ([found([*FAR, 0.9, 1])], [found([*BOX, 1])], 0.0),
        ([np.zeros((0, 6))], [found([*BOX, 1])], 0.0),
        # Overlaps of 0.5 and of 1/3: 10x10 against 10x5, and shifted by a half.
        ([found([0, 0, 10, 5, 0.9, 1])], [found([*BOX, 1])], 100.0),
        ([found([5, 0, 15, 10, 0.9, 1])], [found([*BOX, 1])], 0.0),
        # A second box on the same truth is wrong, but comes after full recall.
        ([found([*BOX, 0.9, 1], [*BOX, 0.8, 1])], [found([*BOX, 1])], 100.0),
        # A wrong one before the right one: precision 1/2 at every recall.
        ([found([*FAR, 0.9, 1], [*BOX, 0.8, 1])], [found([*BOX, 1])], 50.0),
        # One of two found: precision 1 at the 51 recalls up to 0.5.
        ([found([*BOX, 0.9, 1])], [found([*BOX, 1], [*FAR, 1])], 100 * 51 / 101),
        # The mean over classes of 100 and 0; class 3 has no truth and does not count.
        ([found([*BOX, 0.9, 1], [*BOX, 0.9, 3])], [found([*BOX, 1], [*FAR, 2])], 50.0),
        # A box in another image does not help.
        ([np.zeros((0, 6)), found([*BOX, 0.9, 1])], [found([*BOX, 1]), np.zeros((0, 5))], 0.0),
    ],
)
def test_mean_average_precision(answers: list[np.ndarray], truth: list[np.ndarray], points: float) -> None:
    assert mean_average_precision(answers, truth) == pytest.approx(points)


def test_the_overlap_can_be_asked_for() -> None:
    assert mean_average_precision([found([0, 0, 10, 5, 0.9, 1])], [found([*BOX, 1])], iou=0.75) == 0.0


def test_boxes_that_cannot_be_held_against_one_another_are_refused() -> None:
    with pytest.raises(UsageError, match="images differ in number: got 1 with boxes found, expected 2"):
        mean_average_precision([found()], [found(), found()])
    with pytest.raises(UsageError, match=r"boxes have the wrong shape: got \[1, 5\], expected \[boxes, 6\]"):
        mean_average_precision([found([*BOX, 1])], [found([*BOX, 1])])
    with pytest.raises(UsageError, match="the truth holds no box: expected one or more"):
        mean_average_precision([found([*BOX, 0.9, 1])], [found()])
