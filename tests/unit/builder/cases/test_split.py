"""The split: seeded, honest where it can be, and sets in which no row is scored twice."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.builder.cases import split
from tailorbird.builder.cases.data import Data
from tailorbird.builder.cases.places import Place
from tailorbird.builder.cases.split import InputSet, Split, Unit, cover, deal, digest_sets, split_units, units_of


def rows(*numbers: float, width: int = 2) -> dict[str, np.ndarray]:
    return {"x": np.array([[number] * width for number in numbers], np.float32)}


def units(*samples: dict[str, np.ndarray], labelled: bool = False, batch: str | None = "N") -> list[Unit]:
    labels = [sample["x"][:, 0].astype(int) for sample in samples] if labelled else []
    return units_of(Data(list(samples), labels), batch)


def place(at_rows: int, width: int = 2, edge: str = "opt") -> Place:
    return Place(edge, {"x": (at_rows, width)}, at_rows)


def firsts(found: list[Unit]) -> list[float]:
    return [float(unit.inputs["x"][0, 0]) for unit in found]


def parted(count: int, seed: int = 0, opt: Place | None = None, *others: dict[str, np.ndarray]) -> Split:
    return split_units(units(rows(*range(count)), *others), opt or place(1), "N", seed)


# --- the split -----------------------------------------------------------------------------------


def test_rows_are_units_where_there_is_a_batch_dim_and_samples_where_not() -> None:
    assert firsts(units(rows(1, 2), rows(3))) == [1, 2, 3]
    assert [unit.inputs["x"].shape for unit in units(rows(1, 2), rows(3), batch=None)] == [(2, 2), (1, 2)]
    assert [unit.labels.tolist() for unit in units(rows(1, 2), labelled=True) if unit.labels is not None] == [[1], [2]]


@pytest.mark.parametrize(("count", "calibration"), [(4, 2), (5, 2), (127, 63), (128, 64), (1000, 64)])
def test_half_calibrates_up_to_a_limit_and_the_rest_is_held_out(count: int, calibration: int) -> None:
    found = parted(count)
    assert len(found.calibration) == calibration
    assert sorted(firsts(found.calibration) + firsts(found.held)) == list(range(count))
    assert found.notes == (f"{calibration} rows to calibrate on, {count - calibration} held out for the gate (seed 0)",)


def test_what_is_held_out_and_yet_not_scored_is_told() -> None:
    found = split_units(units(rows(*range(600)), labelled=True), place(1), "N", 0)
    assert found.notes == (
        "64 rows to calibrate on, 536 held out for the gate, 512 at most scored at each place (seed 0)",
    )


def test_the_seed_makes_the_split() -> None:
    assert firsts(parted(20, 3).calibration) == firsts(parted(20, 3).calibration)
    assert firsts(parted(20, 3).calibration) != firsts(parted(20, 4).calibration)


@pytest.mark.parametrize("count", [2, 3])
def test_too_few_are_used_on_both_sides_and_it_is_said(count: int) -> None:
    found = parted(count)
    assert firsts(found.calibration) == firsts(found.held) == list(range(count))
    assert found.notes == (f"{count} rows: calibrated and judged on the same ones",)


def test_samples_are_called_so_where_they_are_the_unit() -> None:
    found = split_units(units(rows(1), rows(2), rows(3), batch=None), place(1), None, 0)
    assert found.notes == ("3 samples: calibrated and judged on the same ones",)


def test_one_row_or_none_calibrates_nothing() -> None:
    one = parted(1)
    assert (one.calibration, firsts(one.held)) == ([], [0])
    assert one.notes == ("1 row at the opt shapes is not enough to calibrate on",)
    assert parted(0) == Split([], [], ())
    other = parted(3, 0, place(1, 7))
    assert (other.calibration, len(other.held)) == ([], 3)
    assert other.notes == ("no row has the opt shapes, which is not enough to calibrate on",)


def test_only_rows_of_the_opt_shapes_calibrate_and_all_others_are_held_out() -> None:
    found = parted(6, 0, place(4), rows(7, 8, 9, width=5))
    assert len(found.calibration) == 3
    assert {unit.inputs["x"].shape for unit in found.calibration} == {(1, 2)}
    assert sorted(firsts(found.held))[-3:] == [7, 8, 9]
    assert len(found.held) == 6


@given(st.integers(4, 200), st.integers(0, 9))
def test_nothing_is_calibrated_and_judged_on_at_once(count: int, seed: int) -> None:
    found = parted(count, seed)
    assert not set(firsts(found.calibration)) & set(firsts(found.held))
    assert found.calibration
    assert found.held


# --- unlabelled sets -----------------------------------------------------------------------------


def dealt(samples: list[dict[str, np.ndarray]], count: int, at_rows: int, batch: str | None = "N") -> list[list[float]]:
    found = deal(units(*samples, batch=batch), place(at_rows), batch, count)
    return [one.inputs["x"][:, 0].tolist() for one in found]


def test_rows_are_dealt_in_order_and_differ_between_sets() -> None:
    assert dealt([rows(1, 2, 3), rows(4, 5)], 2, 2) == [[1, 2], [3, 4]]


def test_as_many_sets_as_the_rows_allow() -> None:
    assert dealt([rows(1, 2, 3)], 4, 2) == [[1, 2]]
    assert dealt([rows(1, 2, 3)], 4, 1) == [[1], [2], [3]]


def test_too_few_rows_are_repeated() -> None:
    assert dealt([rows(1), rows(2)], 4, 5) == [[1, 2, 1, 2, 1]]


def test_samples_of_other_dims_are_passed_over() -> None:
    other = rows(9, width=3)
    assert dealt([other, rows(7)], 4, 1) == [[7]]
    assert dealt([other], 4, 1) == []
    assert dealt([], 4, 1) == []


def test_without_a_batch_dim_samples_are_taken_whole() -> None:
    assert dealt([rows(1, 2), rows(3), rows(4, 5)], 4, 2, batch=None) == [[1, 2], [4, 5]]


# --- labelled sets -------------------------------------------------------------------------------


def covered(count: int, at_rows: int) -> list[InputSet]:
    return cover(units(rows(*range(count)), labelled=True), place(at_rows), "N")


def test_the_last_set_is_filled_up_and_what_fills_it_is_not_scored() -> None:
    found = covered(5, 3)
    assert [one.inputs["x"][:, 0].tolist() for one in found] == [[0, 1, 2], [3, 4, 0]]
    assert [one.labels.tolist() for one in found if one.labels is not None] == [[0, 1, 2], [3, 4]]
    assert [one.inputs["x"][:, 0].tolist() for one in covered(2, 5)] == [[0, 1, 0, 1, 0]]


@given(st.integers(1, 60), st.integers(1, 20))
def test_each_row_is_scored_once_at_every_place(count: int, at_rows: int) -> None:
    found = covered(count, at_rows)
    assert all(len(one.inputs["x"]) == at_rows for one in found)
    labels = itertools.chain.from_iterable([] if one.labels is None else one.labels.tolist() for one in found)
    assert list(labels) == list(range(count))


def test_a_place_scores_so_many_rows_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cover(units(rows(*range(9)), labelled=True), place(2), "N", most=4)
    assert [one.labels.tolist() for one in found if one.labels is not None] == [[0, 1], [2, 3]]
    assert len(covered(split.GATE_ROWS + 5, 1)) == split.GATE_ROWS


def test_without_a_batch_dim_each_sample_is_a_set() -> None:
    found = cover(units(rows(1, 2), rows(3, 4), labelled=True, batch=None), place(2), None)
    assert [one.labels.tolist() for one in found if one.labels is not None] == [[1, 2], [3, 4]]


# --- the digest ----------------------------------------------------------------------------------


def test_the_digest_follows_content_and_order() -> None:
    one, two = InputSet(rows(1)), InputSet(rows(2))
    assert digest_sets([one, two]) == digest_sets([InputSet(rows(1)), InputSet(rows(2))])
    kinds = [[one, two], [two, one], [one], [InputSet({"x": rows(1)["x"].astype(np.float64)})],
             [InputSet({"z": rows(1)["x"]})], [InputSet({"x": rows(1)["x"].reshape(2, 1)})]]  # fmt: skip
    assert len({digest_sets(kind) for kind in kinds}) == len(kinds)
    assert digest_sets([one]).startswith("sha256:")
    assert digest_sets([]) == ""


def test_text_has_a_digest_too() -> None:
    texts = [InputSet({"x": np.array([text], object)}) for text in (b"one", b"two")]
    assert digest_sets(texts[:1]) != digest_sets(texts[1:])
