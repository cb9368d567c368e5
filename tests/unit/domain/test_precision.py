"""Tests of ``domain.precision``."""

from tailorbird.domain.precision import Precision


def test_bolder_precisions_rank_later_and_are_held_to_less() -> None:
    ranked = sorted(Precision, key=lambda precision: precision.rank)
    assert ranked == ["fp32", "fp16", "bf16", "fp8", "int8"]
    # FP8 has four significant bits, fewer than INT8 keeps of most values, and a range that INT8 lacks.
    limits = [precision.consistency_db for precision in ranked if precision is not Precision.FP8]
    assert limits == sorted(limits, reverse=True)
    assert min(limits) > Precision.FP8.consistency_db > 0  # a mixed-up row is 0 dB
