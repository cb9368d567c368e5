"""The two low formats, in the numbers that decide what fits into them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from tailorbird.domain.dtype import Array
from tailorbird.domain.fidelity import snr_db
from tailorbird.domain.precision import Precision

BITS_TO_LOSE = 4
"""Of its significant bits a node may lose so many by cancellation: a rounding error sixteenfold."""

HEADROOM = 4.0
"""How far the largest activation seen stays below the format's end: twice for inputs not among the samples, and twice
for sums inside a product, which pass further out than where they end. Constants need none: they are known."""


@dataclass(frozen=True)
class Format:
    """A binary floating-point format (IEEE 754 half, or bfloat16)."""

    name: Precision
    element: int
    """Of ``onnx.TensorProto.DataType``."""
    type_name: str
    """As ONNX operator schemas write it."""
    dtype: Any
    """numpy's, from ``ml_dtypes`` where numpy has none."""
    largest: float
    smallest: float
    """The smallest normal number: below it significant bits are lost."""
    bits: int
    """Significant bits, the hidden one included: whole numbers are exact up to ``2 ** bits``."""
    opset: int
    """From which default operator set on every operator that computes takes the format."""

    @property
    def least_db(self) -> float:
        """Least signal-to-noise ratio of one node in this format: its unit round-off 2^-bits less BITS_TO_LOSE bits."""
        return 20 * math.log10(2) * (self.bits - BITS_TO_LOSE)

    def rounded(self, array: Array) -> Array:
        """FP32 values in this format; beyond its end they become infinite, as a Cast node makes them."""
        with np.errstate(over="ignore"):
            return np.asarray(array).astype(self.dtype)

    def overflow(self, array: Array) -> str:
        """Why a constant is too large; empty when it is not. What is infinite already stays so."""
        peak = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        return f"reaches {peak:.3g}, beyond {self.largest:.6g}" if peak > self.largest else ""

    def loss(self, array: Array) -> str:
        """Why a constant is too small; empty when it is not.

        The ratio judges the tensor as a whole: single weights that become subnormal beside larger ones cost
        nothing, an epsilon of 1e-12 becomes 0.
        """
        finite = array[np.isfinite(array)].astype(np.float64)
        peak = float(np.abs(finite).max(initial=0.0))
        if peak and snr_db(finite, self.rounded(finite).astype(np.float64)) < self.least_db:
            return f"holds {peak:.3g} at most, too small for the format"
        return ""


FORMATS = {
    Precision.FP16: Format(Precision.FP16, TensorProto.FLOAT16, "tensor(float16)", np.float16, 65504.0, 2.0**-14, 11,
                           13),
    Precision.BF16: Format(Precision.BF16, TensorProto.BFLOAT16, "tensor(bfloat16)", ml_dtypes.bfloat16,
                           float(ml_dtypes.finfo(ml_dtypes.bfloat16).max), 2.0**-126, 8, 22),
}  # fmt: skip
