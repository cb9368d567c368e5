"""Fidelity: what the gate makes of the numbers."""

import math

import numpy as np
import pytest

from tailorbird.builder.gate.fidelity import NOT_JUDGED, compare, winners
from tailorbird.domain.budget import Budget, Check

NAN, INF = math.nan, math.inf


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


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
