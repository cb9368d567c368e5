"""Tests of ``domain.budget``."""

import math

import msgspec
import pytest

from tailorbird.domain.budget import SPELLINGS, Budget, Check, GateReport, parse_budget
from tailorbird.domain.errors import UsageError


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


# --- the metric ----------------------------------------------------------------------------------


def scored(measured: float | str, reference: float | None = 98.1, passed: bool = True, where: str = "opt") -> Check:
    return Check("metric top1", passed, where, measured, 97.1, reference)


def test_the_verdict_shows_the_metric_where_it_lost_most() -> None:
    report = GateReport((check(), scored(98.0), scored(97.8, where="min"), scored(98.3)))
    assert report.score == "top1 97.8 of 98.1"
    assert report.verdict == "pass, top1 97.8 of 98.1"
    assert report.worst("metric top1") == 97.8
    assert GateReport((check(),)).score == ""
    assert GateReport((scored("raised", None, False),)).score == ""


def test_a_metric_below_its_limit_says_so() -> None:
    assert GateReport((scored(96.0, passed=False),)).verdict == "metric top1 96 misses 97.1 (opt)"


def test_a_check_survives_json_with_its_reference_and_without() -> None:
    for one in (scored(97.8), check()):
        assert msgspec.json.decode(msgspec.json.encode(one), type=Check) == one
    assert "reference" not in msgspec.to_builtins(check())


ACCURACY = ["snr_db", "cosine", "top1", "equal elements", "NaN or Inf"]


def failed(*rules: str) -> GateReport:
    return GateReport((check(), *(check(False, rule) for rule in rules)))


def test_whether_accuracy_was_missed_among_other_things() -> None:
    assert failed("engine runs", "snr_db").misses_accuracy
    assert not failed("engine runs").misses_accuracy
    assert not GateReport(()).misses_accuracy


def test_only_accuracy_failed() -> None:
    assert failed(*ACCURACY).only_accuracy
    assert all(failed(rule).only_accuracy for rule in ACCURACY)
    assert GateReport((scored(90.0, passed=False),)).only_accuracy


@pytest.mark.parametrize("rule", ["executed precision", "dtype and shape", "same row alone", "engine runs", "output"])
def test_anything_else_is_no_matter_of_accuracy(rule: str) -> None:
    assert not failed("snr_db", rule).only_accuracy


def test_what_passed_or_could_not_be_scored_is_no_matter_of_accuracy() -> None:
    assert not GateReport(()).only_accuracy
    assert not GateReport((check(),)).only_accuracy
    assert not GateReport((scored("the metric raised", None, False),)).only_accuracy


# --- spellings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("99%", Budget(share=0.99, top1=0.99)),
        ("99.9%", Budget(share=0.999, top1=0.999)),
        ("100 %", Budget(share=1.0, top1=1.0)),
        ("top1 drop <= 0.5", Budget(drop=0.5, metric="top1")),
        ("Top5 drop<=.5", Budget(drop=0.5, metric="top5")),
        ("top1 >= 99.5%", Budget(share=0.995, top1=0.995, metric="top1")),
        ("f1 >= 90%", Budget(share=0.9, metric="f1")),
        ("snr >= 25", Budget(snr_db=25.0, fidelity=True)),
        ("SNR >= 25 dB, 99%", Budget(snr_db=25.0, fidelity=True, share=0.99, top1=0.99)),
        ("cosine >= 0.999", Budget(cosine=0.999, fidelity=True)),
        ("snr >= 25, cosine >= 0.9", Budget(snr_db=25.0, cosine=0.9, fidelity=True)),
        ("module:callable drop <= 0.01", Budget(drop=0.01, metric="module:callable")),
        ("My.Module:Callable drop <= 1e-3", Budget(drop=0.001, metric="My.Module:Callable")),
    ],
)
def test_spellings(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text",
    [
        *["99", "0%", "101%", "nan%", "-1%", "1e999%", "top1", "top1 >= 99", "top1 drop 0.5", "top1 drop <= -1"],
        *[
            "top1 drop >= 0.5",
            "drop <= 0.5",
            "snr >= 25%",
            "snr drop <= 1",
            "snr <= 25",
            "cosine >= 2",
            "cosine >= 99%",
        ],
        *["99%,", ", 99%", "99% 98%", "snr >= 1e999", "cosine >= 0.9 dB", "a:b:c >= 9%"],
    ],
)
def test_what_cannot_be_read_is_refused_with_the_spellings(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    assert str(caught.value) == f"cannot read the budget: got {text}, expected {SPELLINGS}"


@pytest.mark.parametrize(
    "text", ["99%, 98%", "99%, top1 drop <= 1", "top1 drop <= 1, top1 >= 99%", "snr >= 3, snr >= 4", "f1 >= 9%, 9%"]
)
def test_a_limit_that_is_said_twice_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    assert str(caught.value) == f"the budget says one limit twice: got {text}, expected each limit once"


def test_the_least_score_is_a_share_or_a_drop() -> None:
    assert Budget().least(80.0) == pytest.approx(79.2)
    assert Budget(drop=0.5).least(80.0) == 79.5
    assert (Budget(share=0.999).words, Budget(drop=0.5).words) == ("99.9% of FP32", "a drop of 0.5")


@pytest.mark.parametrize(
    "fields", [{"share": 99}, {"share": 0}, {"share": float("nan")}, {"top1": 0}, {"cosine": 2}, {"drop": -1}]
)
def test_settings_that_would_let_everything_or_nothing_pass_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `float"):
        msgspec.convert(fields, Budget)
