"""The numbers of the formats, and what fits."""

import numpy as np
import pytest

from tailorbird.builder.precision.formats import FORMATS
from tailorbird.domain.precision import Precision

FP16, BF16 = FORMATS[Precision.FP16], FORMATS[Precision.BF16]


@pytest.mark.parametrize("low", [FP16, BF16])
def test_the_ends_are_the_formats_own(low: object) -> None:
    assert isinstance(low, type(FP16))
    for end in (low.largest, low.smallest, 2.0**low.bits):
        assert float(low.rounded(np.array(end))) == end
    assert np.isinf(low.rounded(np.array(low.largest * 1.01)).astype(np.float32))
    assert float(low.rounded(np.array(2.0**low.bits + 1))) == 2.0**low.bits


def test_a_node_may_lose_four_bits() -> None:
    assert (round(FP16.least_db), round(BF16.least_db)) == (42, 24)


def test_constants_that_fit() -> None:
    for low in (FP16, BF16):
        for values in ([0.0, 1.0, -300.25], [], [0.0], [-np.inf, 0.0]):
            array = np.array(values, np.float32)
            assert low.overflow(array) == low.loss(array) == ""
    small_beside_large = np.array([1e-7] * 1000 + [0.5], np.float32)
    assert FP16.loss(small_beside_large) == ""


def test_constants_that_do_not() -> None:
    assert FP16.overflow(np.array([1.0, -7e4], np.float32)) == "reaches 7e+04, beyond 65504"
    assert BF16.overflow(np.array([-3.4028235e38], np.float32)) == "reaches 3.4e+38, beyond 3.38953e+38"
    assert FP16.loss(np.array([1e-12], np.float32)) == "holds 1e-12 at most, too small for the format"
    assert BF16.loss(np.array([1e-12], np.float32)) == ""
