"""Fidelity: the numbers by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.builder.gate.fidelity import (
    CAP_DB,
    NOT_JUDGED,
    compare,
    cosine,
    decibels,
    is_class_like,
    snr_db,
    top1_agreement,
    winners,
)
from tailorbird.domain.budget import Budget, Check

NAN, INF = math.nan, math.inf


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("reference", "output", "expected"),
    [
        (f32(3, 4), f32(3, 4), CAP_DB),
        (f32(3, 4), f32(3, 4.5), 20.0),
        (f32(3, 4), f32(0, 0), 0.0),
        (f32(1, 0), f32(0, 1), -3.0103),
        (f32(0, 0), f32(0, 0), CAP_DB),
        (f32(0, 0), f32(0, 1e-9), -CAP_DB),
        (f32(3, NAN, 4), f32(3, NAN, 4.5), 20.0),
        (f32(1e30), f32(-1e30), -6.0206),
        (np.array([1e300]), np.array([-1e300]), -CAP_DB),
        (np.array([3, 4]), np.array([3, 4]), CAP_DB),
        (np.array([True, False]), np.array([False, False]), 0.0),
        (np.array([100, 200], np.uint8), np.array([200, 100], np.uint8), 3.9794),
    ],
)
def test_signal_to_noise_ratio(reference: np.ndarray, output: np.ndarray, expected: float) -> None:
    with np.errstate(over="ignore"):
        assert snr_db(reference, output) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("signal", "noise"), [(1.0, INF), (INF, INF), (NAN, 1.0), (1.0, NAN), (0.0, 1.0)])
def test_energies_without_meaning_are_the_worst(signal: float, noise: float) -> None:
    assert decibels(signal, noise) == -CAP_DB


@given(st.floats(min_value=0, allow_infinity=False), st.floats(min_value=0, allow_infinity=False))
def test_decibels_are_always_a_number_that_json_has(signal: float, noise: float) -> None:
    assert -CAP_DB <= decibels(signal, noise) <= CAP_DB


@pytest.mark.parametrize(
    ("reference", "output", "expected"),
    [
        (f32(1, 0), f32(5, 0), 1.0),
        (f32(1, 0), f32(0, 1), 0.0),
        (f32(1, 0), f32(-1, 0), -1.0),
        (f32(3, 4), f32(4, 3), 0.96),
        (f32(0, 0), f32(0, 0), 1.0),
        (f32(0, 0), f32(1, 0), 0.0),
        (np.array([1e300]), np.array([1e300]), 0.0),
    ],
)
def test_cosine(reference: np.ndarray, output: np.ndarray, expected: float) -> None:
    with np.errstate(over="ignore"):
        assert cosine(reference, output) == pytest.approx(expected)


def test_top1() -> None:
    reference = f32(0.1, 0.9, 0.8, 0.2).reshape(2, 2)
    assert top1_agreement(reference, reference[:, ::-1]) == 0.0
    assert top1_agreement(reference, f32(0.2, 0.7, 0.3, 0.4).reshape(2, 2)) == 0.5


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (f32(0.25, 0.75).reshape(1, 2), True),
        (f32(0.25, 0.7501).reshape(1, 2), True),
        (f32(0.25, 0.80).reshape(1, 2), False),
        (f32(-0.25, 1.25).reshape(1, 2), False),
        (f32(1, 1).reshape(2, 1), False),
        (f32(0.25, 0.75), False),
        (np.array([[0, 1]]), False),
    ],
)
def test_class_like_is_a_distribution_over_classes(array: np.ndarray, expected: bool) -> None:
    assert is_class_like(array) is expected


def checks(reference: np.ndarray, output: np.ndarray, judged: bool = True) -> dict[str, Check]:
    found = compare({"y": reference}, {"y": output}, Budget(), "opt 1x2", judged)
    return {check.rule: check for check in found}


def broken(reference: np.ndarray, output: np.ndarray, judged: bool = True) -> list[str]:
    return [rule for rule, check in checks(reference, output, judged).items() if not check.passed]


def test_a_faithful_output_breaks_nothing() -> None:
    assert list(checks(f32(1, 2), f32(1, 2))) == ["dtype and shape", "NaN or Inf", "snr_db", "cosine"]
    assert broken(f32(1, 2), f32(1, 2)) == []


@pytest.mark.parametrize(
    ("reference", "output", "strange"),
    [
        (f32(1, 2), f32(1, NAN), 1),
        (f32(1, 2), f32(INF, -INF), 2),
        (f32(1, INF), f32(1, -INF), 1),
        (f32(1, INF), f32(1, NAN), 1),
        (f32(1, NAN), f32(1, INF), 1),
        (f32(1, INF), f32(1, INF), 0),
        (f32(1, NAN), f32(1, NAN), 0),
        (f32(1, NAN), f32(1, 5), 0),
    ],
)
def test_nan_and_inf_that_the_reference_lacks_are_counted(
    reference: np.ndarray, output: np.ndarray, strange: int
) -> None:
    check = checks(reference, output)["NaN or Inf"]
    assert (check.measured, check.limit, check.passed) == (float(strange), 0.0, strange == 0)


@pytest.mark.parametrize("output", [np.array([1.0, 2.0]), f32(1, 2, 3), f32(1, 2).reshape(2, 1)])
def test_another_dtype_or_shape_is_broken_and_nothing_else_is_said(output: np.ndarray) -> None:
    assert broken(f32(1, 2), output) == ["dtype and shape"]
    assert len(checks(f32(1, 2), output)) == 1


def test_a_missing_output_is_broken() -> None:
    (check,) = compare({"y": f32(1)}, {"z": f32(1)}, Budget(), "opt 1")
    assert check == Check("output", False, "opt 1, y", "missing", "present")


def test_whole_numbers_must_be_equal_but_for_the_budget() -> None:
    reference = np.arange(200)
    output = reference.copy()
    output[0] = 9
    assert broken(reference, output) == []
    output[:3] = 9
    assert broken(reference, output) == ["equal elements"]
    assert broken(np.array([b"a", b"b"], object), np.array([b"a", b"c"], object)) == ["equal elements"]


def test_where_labels_decide_fidelity_is_noted_and_form_is_judged() -> None:
    noted = checks(f32(1, 2), f32(-1, 2), judged=False)
    assert (noted["snr_db"].passed, noted["snr_db"].limit) == (True, NOT_JUDGED)
    assert noted["snr_db"].measured == pytest.approx(0.969, abs=1e-3)
    assert (noted["cosine"].passed, noted["cosine"].limit) == (True, NOT_JUDGED)
    assert broken(np.arange(3), np.arange(3) + 1, judged=False) == []
    assert broken(f32(1, 2), f32(1, NAN), judged=False) == ["NaN or Inf"]
    assert broken(f32(1, 2), f32(1), judged=False) == ["dtype and shape"]


def test_winners_are_counted_of_class_like_outputs_that_can_be_compared() -> None:
    even = f32(0.1, 0.9, 0.8, 0.2).reshape(2, 2)
    references = {"class": even, "wide": even * 3, "gone": even, "cut": even, "nan": even}
    outputs = {"class": f32(0.2, 0.7, 0.3, 0.4).reshape(2, 2), "wide": even, "cut": even[:1], "nan": even * NAN}
    assert list(winners(references, outputs)) == [("class", 1, 2)]
