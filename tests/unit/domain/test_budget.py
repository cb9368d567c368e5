"""Tests of ``domain.budget``."""

import math

import msgspec
import pytest

from tailorbird.domain.budget import Budget, Check, GateReport


def check(
    passed: bool = True, rule: str = "snr_db", measured: float | str = 42.125, limit: float | str = 20.0
) -> Check:
    return Check(rule, passed, "y at opt", measured, limit)


def test_a_check_says_its_numbers() -> None:
    assert str(check()) == "snr_db 42.12 meets 20 (y at opt)"
    assert str(check(False, "executed precision", "fp32 x3", "bf16")) == (
        "executed precision fp32 x3 misses bf16 (y at opt)"
    )


def test_a_gate_that_checked_nothing_has_failed() -> None:
    assert not GateReport(()).passed
    assert GateReport(()).verdict == "gate did not run"
    assert GateReport(()).worst("snr_db") is None


def test_all_must_hold() -> None:
    held = GateReport((check(), check(measured=30.5), check(rule="cosine", measured=0.999)))
    assert held.passed
    assert held.failures == ()
    assert held.worst("snr_db") == 30.5
    assert held.verdict == "pass, SNR 30.5 dB"
    broken = GateReport((check(), check(False, measured=3.0), check(False, measured=2.0), check(False, measured=1.0)))
    assert not broken.passed
    assert len(broken.failures) == 3
    assert broken.verdict == "snr_db 3 misses 20 (y at opt), and 2 more"
    assert GateReport((check(False, measured=3.0),)).verdict == "snr_db 3 misses 20 (y at opt)"


def test_a_pass_without_floats_has_no_ratio() -> None:
    assert GateReport((check(rule="equal elements", measured=1.0),)).verdict == "pass"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_kept_as_a_word(number: float) -> None:
    odd = check(False, measured=number)
    assert odd.measured == str(number)
    assert msgspec.json.decode(msgspec.json.encode(odd), type=Check) == odd


def test_a_budget_refuses_what_it_does_not_know() -> None:
    assert Budget() == Budget(snr_db=20.0, cosine=0.995, top1=0.99)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"snr": 3}, Budget)
