"""Fidelity: the numbers by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.fidelity import CAP_DB, cosine, decibels, is_class_like, snr_db, top1_agreement

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
