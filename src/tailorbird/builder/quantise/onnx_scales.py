"""Scales of symmetric types: INT8 with one for each channel of a weight, and FP8 (E4M3) with one for each tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from tailorbird.domain.dtype import Array

_LEAST = -24
"""Exponent of FP16's smallest number (IEEE 754 half)."""


@dataclass(frozen=True)
class Style:
    """How numbers are quantised."""

    dtype: Any
    """numpy's, from ``ml_dtypes`` where numpy has none."""
    largest: float
    """What the end of the range becomes."""
    levels: int
    """Steps from 0 to that end, which entropy calibration merges its bins into."""
    per_channel: bool
    corrects: bool
    """Whether biases make up for what rounding the weights does to means. Measured over the zoo: INT8 gained up to 7 dB
    (PP-OCR det: 17.4 to 24.5) and lost 0.3 at most; FP8, whose activations are rounded as coarsely, gained nothing."""
    opset: int
    """The default operator set from which Q/DQ take it (ONNX)."""

    def scale_of(self, low: float, high: float) -> Array:
        """The scale of a range, even about 0."""
        return self._scales(np.asarray(max(abs(low), abs(high)), np.float64))

    def weight_scales(self, weight: Array, axis: int | None) -> Array:
        """One scale, or one for each index of an axis."""
        others = None if axis is None else tuple(index for index in range(weight.ndim) if index != axis)
        return self._scales(np.abs(weight).max(axis=others, initial=0.0).astype(np.float64))

    def narrowed(self, weight: Array, scales: Array, axis: int | None) -> Array:
        """The weight in the type: what dequantises to the nearest value."""
        steps = weight / _along(scales, axis, weight.ndim)
        steps = steps if self.dtype is not np.int8 else np.rint(steps)
        return np.asarray(np.clip(steps, -self.largest, self.largest)).astype(self.dtype)

    def restored(self, steps: Array, scales: Array, axis: int | None) -> Array:
        """What a DequantizeLinear makes of it, in FP32."""
        return np.asarray(steps.astype(np.float32) * _along(scales, axis, steps.ndim))

    def _scales(self, peaks: Array) -> Array:
        """Scales that FP16 and BF16 hold exactly, rounded up so that nothing is cut.

        They have eight significant bits, and are whole multiples of FP16's smallest number: a channel whose weights
        are nearly 0 would otherwise have a scale of 0 there, which TensorRT refuses. One of zeros has 1.
        """
        _, exponent = np.frexp(peaks / self.largest)
        step = np.ldexp(1.0, np.maximum(exponent - 8, _LEAST))
        return np.where(peaks == 0, 1.0, np.ceil(peaks / self.largest / step) * step).astype(np.float32)


def _along(scales: Array, axis: int | None, rank: int) -> Array:
    return scales if axis is None else scales.reshape([-1 if index == axis else 1 for index in range(rank)])


STYLES = {
    "qdq-symmetric": Style(np.int8, 127.0, 128, per_channel=True, corrects=True, opset=13),
    "qdq-fp8": Style(ml_dtypes.float8_e4m3fn, 448.0, 128, per_channel=False, corrects=False, opset=19),
}
"""By method. TensorRT takes FP8 weights with one scale for each tensor; FP8 is a floating-point type, whose small
numbers are as exact as its large ones, so channels of their own would gain little."""
