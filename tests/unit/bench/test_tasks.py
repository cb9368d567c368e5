import random

import numpy as np
import pytest

from bench import tasks
from bench.tasks import digits, filetypes, in_batches, scoring, text, top1


def test_top1_is_the_percentage_of_labelled_winners() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
    assert top1({"scores": scores}, np.array([1, 0, 0, 0])) == 75.0


def test_batches_all_have_one_shape_and_keep_rows_beside_their_labels() -> None:
    rows = {"x": np.arange(7)[:, None], "labels": np.arange(7) * 10}
    batches = in_batches(rows, 3)
    assert [batch["labels"].tolist() for batch in batches] == [[0, 10, 20], [30, 40, 50]]
    assert all((batch["x"][:, 0] * 10 == batch["labels"]).all() for batch in batches)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no task 'digit'; there are digits, filetypes, text"):
        tasks.get("digit")


@pytest.mark.parametrize("name", tasks.NAMES)
def test_every_task_offers_what_the_benchmark_asks_for(name: str) -> None:
    task = tasks.get(name)
    assert callable(scoring.resolve(task.metric))
    assert all(callable(part) for part in (task.model, task.samples, task.data))


def test_outputs_get_names_by_position() -> None:
    first, second = np.zeros(1), np.ones(2)
    for outputs in ([first, second], {"b": first, "a": second}):
        found = scoring.named(outputs)
        assert list(found) == ["0", "1"]
        assert found["0"] is first
        assert found["1"] is second


def test_enlarged_pictures_keep_flat_ground_and_follow_a_slope() -> None:
    flat = digits.enlarged(np.full((2, 8, 8), 0.5, np.float32))
    assert flat.shape == (2, 1, 32, 32)
    assert flat.dtype == np.float32
    np.testing.assert_allclose(flat, 0.5, atol=1e-6)
    slope = digits.enlarged(np.tile(np.arange(8, dtype=np.float32), (1, 8, 1)))[0, 0, 5]
    np.testing.assert_allclose(slope[2:30], (np.arange(2, 30) + 0.5) / 4 - 0.5, atol=1e-5)


def test_a_file_s_split_depends_on_its_content_alone_and_splits_have_their_portions() -> None:
    splits = [filetypes.split_of(f"content {number}".encode()) for number in range(7000)]
    assert splits == [filetypes.split_of(f"content {number}".encode()) for number in range(7000)]
    for split, portion in filetypes.PORTIONS.items():
        assert splits.count(split) == pytest.approx(500 * portion, rel=0.15)


def test_no_extension_means_two_types() -> None:
    extensions = " ".join(filetypes.TYPES.values()).split()
    assert len(extensions) == len(set(extensions))


def spelt(*classes: int, count: int = 9) -> np.ndarray:
    """Probabilities, one line, whose best path is these classes."""
    return np.eye(count, dtype=np.float32)[list(classes)][None]


@pytest.mark.parametrize(
    ("path", "score"),
    [
        ((1, 0, 2, 2, 0, 3, 4), 100.0),
        ((1, 0, 2, 2, 0, 3, 5), 75.0),
        ((1, 1, 3, 4), 75.0),
        ((0, 0, 0), 0.0),
        ((5, 6, 5, 6, 5, 6, 5, 6, 5, 6), 0.0),
    ],
)
def test_characters_are_scored_by_edit_distance_never_below_zero(path: tuple[int, ...], score: float) -> None:
    assert text.characters({"out": spelt(*path)}, np.array([[1, 2, 3, 4, 0, 0]])) == score


def test_characters_of_several_lines_are_averaged_over_lines() -> None:
    outputs = np.concatenate([spelt(1, 0, 0), spelt(3, 4, 5)])
    assert text.characters({"out": outputs}, np.array([[1, 0, 0], [6, 7, 8]])) == 50.0


def test_a_line_of_text_is_drawn_the_same_for_the_same_seed_and_not_for_another() -> None:
    one, again, other = (text._drawn("Flat white 3.80", random.Random(seed)) for seed in (1, 1, 2))
    assert one.dtype == np.uint8
    assert one.shape[2] == 3
    assert one.std() > 1
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or (one != other).any()


@pytest.mark.parametrize("form", text._FORMS)
def test_what_stands_on_receipts_fits_a_label(form: object) -> None:
    assert callable(form)
    assert all(0 < len(form(random.Random(seed))) <= text.LONGEST for seed in range(200))
