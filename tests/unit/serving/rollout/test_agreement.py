"""Agreement: numbers by hand, over several answers."""

import math

import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.fidelity import CAP_DB
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.serving.rollout.agreement import Agreement


def of(dtype, *pairs):
    """The figures of an output ``y`` over pairs of live and shadow arrays."""
    spec = TensorSpec("y", dtype, ("n",))
    agreement = Agreement(Signature((spec,), (spec,)))
    for live, shadow in pairs:
        agreement.add({"y": live}, {} if shadow is None else {"y": shadow})
    (found,) = agreement.status()
    return found


def f32(*values):
    return np.array(values, np.float32)


def test_nothing_compared_has_no_numbers():
    found = of(DType.FP32)
    assert (found.name, found.compared) == ("y", 0)
    assert {found.max_abs_error, found.snr_db, found.cosine, found.top1, found.equal} == {None}


def test_equal_answers():
    found = of(DType.FP32, (f32(3, 4), f32(3, 4)), (f32(0, 0), f32(0, 0)))
    assert (found.compared, found.mismatched, found.strange) == (2, 0, 0)
    assert (found.max_abs_error, found.snr_db, found.worst_snr_db) == (0.0, CAP_DB, CAP_DB)
    assert (found.cosine, found.worst_cosine) == pytest.approx((1, 1))


def test_the_whole_and_the_worst_are_told_apart():
    found = of(DType.FP32, (f32(3, 4), f32(3, 4)), (f32(3, 4), f32(3, 4.5)))
    assert found.max_abs_error == 0.5
    assert found.snr_db == pytest.approx(10 * math.log10(50 / 0.25))
    assert found.worst_snr_db == pytest.approx(20.0)
    worst = (9 + 18) / (5 * math.hypot(3, 4.5))
    assert (found.cosine, found.worst_cosine) == (pytest.approx((1 + worst) / 2), pytest.approx(worst))


def test_what_the_shadow_makes_nan_is_counted_and_the_rest_compared():
    found = of(DType.FP32, (f32(1, 2, math.inf, math.nan), f32(1, math.nan, math.inf, 5)))
    assert (found.strange, found.max_abs_error) == (1, 0.0)
    assert of(DType.FP32, (f32(1), f32(math.nan))).snr_db is None


@pytest.mark.parametrize("shadow", [None, f32(1), np.array([1.0, 2.0])])
def test_another_form_is_counted_and_not_compared(shadow):
    found = of(DType.FP32, (f32(1, 2), shadow))
    assert (found.compared, found.mismatched, found.snr_db) == (1, 1, None)


def test_winners_of_distributions():
    live = f32(0.1, 0.9, 0.8, 0.2).reshape(2, 2)
    found = of(DType.FP32, (live, f32(0.2, 0.8, 0.3, 0.7).reshape(2, 2)), (live, live))
    assert found.top1 == 0.75
    assert of(DType.FP32, (live * 3, live)).top1 is None


def test_whole_numbers_and_texts_are_equal_or_not():
    assert of(DType.INT64, (np.array([1, 2]), np.array([1, 3])), (np.array([1, 2]), np.array([1, 2]))).equal == 0.75
    texts = np.array([b"a", b"b"], object), np.array([b"a", b"c"], object)
    assert of(DType.BYTES, texts).equal == 0.5
    assert of(DType.INT64, (np.array([1]), np.array([1]))).snr_db is None


def test_bf16_is_compared_as_the_numbers_it_stands_for():
    one, near = (np.array([bits], np.uint16) for bits in (0x3F80, 0x3F81))
    assert of(DType.BF16, (one, near)).max_abs_error == 2**-7


def test_huge_numbers_warn_nobody():
    found = of(DType.FP64, (np.array([1e300]), np.array([-1e300])))
    assert (found.max_abs_error, found.snr_db) == (2e300, -CAP_DB)
