"""Tests of ``domain.precision``."""

from tailorbird.domain.precision import Precision


def test_bolder_precisions_rank_later_and_are_held_to_less() -> None:
    ranked = sorted(Precision, key=lambda precision: precision.rank)
    assert ranked == ["fp32", "fp16", "bf16", "int8"]
    limits = [precision.consistency_db for precision in ranked]
    assert limits == sorted(limits, reverse=True)
    assert min(limits) > 0  # a mixed-up row is 0 dB
