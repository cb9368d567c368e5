"""Pruning: what a relative's outcome says of a candidate."""

from typing import Any

import msgspec

from tailorbird.builder.search.prune import reason_to_skip
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation
from tailorbird.domain.target import Target


def candidate(precision: str = "fp32", threads: int = 1, rest: str = "", **changes: Any) -> Candidate:
    quantisation = Quantisation("nncf", Precision(rest)) if rest else None
    made = Candidate(Target("a", "cpu", "avx2"), Precision(precision), Profile.static({"x": (1,)}), ShapeMode.STATIC,
                     threads, quantisation=quantisation)  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def after(one: Candidate, status: Status) -> list[Outcome]:
    return [Outcome(one, status, "")]


def test_nothing_is_known_of_the_first() -> None:
    assert reason_to_skip(candidate(), []) == ""


def test_fewer_threads_are_tried_only_of_what_stood_with_more() -> None:
    more = candidate(threads=4)
    assert reason_to_skip(candidate(), after(more, Status.SLOWER)) == ""
    assert reason_to_skip(candidate(), after(more, Status.REFUSED)) == "on 4 threads it was gate failed"
    assert reason_to_skip(candidate(instances=4), after(more, Status.CRASHED)) == "on 4 threads it was crashed"
    assert reason_to_skip(candidate(threads=8), after(more, Status.REFUSED)) == ""
    assert reason_to_skip(candidate("bf16"), after(more, Status.REFUSED)) == ""


def test_float32_beside_int8_is_tried_only_when_a_lower_float_did_not_pass() -> None:
    plain, bold = candidate("int8", rest="fp32"), candidate("int8", rest="bf16")
    assert reason_to_skip(plain, after(bold, Status.SLOWER)) == "with bf16 for the rest it passed"
    assert reason_to_skip(plain, after(bold, Status.REFUSED)) == ""
    assert reason_to_skip(bold, after(plain, Status.SLOWER)) == ""


def test_weights_in_int8_follow_the_same_rule_whatever_they_are_computed_in() -> None:
    plain, bold = candidate("fp32", rest="fp32"), candidate("bf16", rest="bf16")
    assert reason_to_skip(plain, after(bold, Status.SLOWER)) == "with bf16 for the rest it passed"


def test_another_method_says_nothing() -> None:
    other = candidate("int8", rest="bf16", quantisation=Quantisation("qdq", Precision.BF16))
    assert reason_to_skip(candidate("int8", rest="fp32"), after(other, Status.SLOWER)) == ""


def test_a_method_of_the_same_kernels_follows_its_kin() -> None:
    kin = candidate("int8", rest="fp32", quantisation=Quantisation("qdq"))
    like = msgspec.structs.replace(kin, quantisation=Quantisation("qoperator"))
    said = "much like a int8 static t1 qdq, which was stopped early"
    assert reason_to_skip(like, after(kin, Status.STOPPED)) == said
    assert reason_to_skip(like, after(kin, Status.REFUSED)) == ""  # the other's numbers may be right
    assert reason_to_skip(kin, after(like, Status.STOPPED)) == ""


def test_weights_alone_are_not_tried_where_float_was_far_behind_int8() -> None:
    weights = candidate("fp32", quantisation=Quantisation("weights"))
    plain, int8 = candidate("fp32"), candidate("int8", rest="fp32")
    slow, passed = Outcome(plain, Status.STOPPED, ""), Outcome(int8, Status.SLOWER, "")
    said = "computed as a fp32 static t1, which was stopped early, and INT8 passed"
    assert reason_to_skip(weights, [slow, passed]) == said
    assert reason_to_skip(weights, [slow]) == ""  # memory may be what bounds it, and small weights the remedy
    assert reason_to_skip(weights, [Outcome(plain, Status.SLOWER, ""), passed]) == ""
