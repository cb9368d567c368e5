"""Precisions a candidate can ask for and a runtime can execute."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """An arithmetic precision, highest first."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"

    @property
    def rank(self) -> int:
        """0 for the highest precision; a larger rank is a bolder choice that must earn its place."""
        return list(Precision).index(self)

    @property
    def consistency_db(self) -> float:
        """Least signal-to-noise ratio, in dB, between a row alone and the same row in a batch.

        A runtime may pick other kernels for other batches, so rows agree to the rounding of the
        precision, not to the bit; a mixed-up row is 0 dB. 2^-24, 2^-11, 2^-8 and 2^-4 are the unit
        round-offs (IEEE 754; bfloat16 has 8 significant bits, FP8 E4M3 has 4): -20 log10 of them is
        144, 66, 48 and 24 dB for one operation, of which deep networks lose about half.
        """
        return _CONSISTENCY_DB[self]


_CONSISTENCY_DB = {
    Precision.FP32: 60.0,
    Precision.FP16: 36.0,
    Precision.BF16: 24.0,
    Precision.FP8: 12.0,
    Precision.INT8: 20.0,
}
