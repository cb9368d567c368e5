"""Progress: every event in plain words, and what goes on now."""

from typing import Any

import pytest
from rich.console import Console

from tailorbird.cli import progress
from tailorbird.cli.progress import BuildProgress, Course
from tests.unit.builder.figures import builds

NAMES = ["onnxruntime fp32 static t2", "openvino int8 static t2 nncf bf16-rest", "openvino int8 static t2 nncf",
         "onnxruntime fp32 static t2 opt=2"]  # fmt: skip


def tried(candidate: str, status: str = "slower", reason: str = "", median: float | None = 3.0) -> dict[str, Any]:
    return {"event": "tried", "at": 1.0, "candidate": candidate, "status": status, "reason": reason, "median": median,
            "seconds": 1.0}  # fmt: skip


def told(*events: dict[str, Any]) -> tuple[Course, list[str]]:
    course, lines = Course(), []
    for event in events:
        course.follow(event)
        lines += list(course.lines(event))
    return course, lines


def event(kind: str) -> dict[str, Any]:
    return next(one for one in builds.events() if one["event"] == kind)


ENTRANTS = {"event": "candidates", "at": 0.1, "names": NAMES, "baseline": NAMES[0], "left_out": ["qdq: no data [x]"]}
QUANTISED = {"event": "quantised", "at": 2.0, "method": "nncf bf16-rest", "units": 53, "cached": False, "notes": [],
             "seconds": 6.4}  # fmt: skip


def test_the_live_line_says_which_candidate_and_whether_it_is_quantised_first() -> None:
    course, _ = told(ENTRANTS)
    assert course.doing(ENTRANTS) == f"1/4 trying {NAMES[0]}"
    first = tried(NAMES[0])
    course.follow(first)
    assert course.doing({"event": "quantising", "at": 2.0, "method": "nncf percentile"}) == "quantising nncf percentile"
    assert course.doing(QUANTISED) == f"2/4 trying {NAMES[1]}"


def test_runtime_options_are_no_methods() -> None:
    course, _ = told(ENTRANTS, *(tried(name) for name in NAMES[:3]))
    assert course.doing(tried(NAMES[2])) == f"4/4 trying {NAMES[3]}"


def test_after_the_last_candidate_come_mixed_precision_and_finals() -> None:
    course, _ = told(ENTRANTS, *(tried(name) for name in NAMES))
    assert course.doing(tried(NAMES[-1])) == "mixed precision and finals"
    course.follow(tried("openvino int8 static t2 nncf kept3"))
    assert course.total == 5
    assert course.doing({"event": "round", "at": 9.0}) == "finalists in turn"


def test_methods_left_out_have_a_line_each() -> None:
    _, lines = told(ENTRANTS)
    assert lines == ["4 candidates", "  [dim]left out: qdq: no data \\[x][/]"]


def test_the_data_and_how_it_was_split() -> None:
    _, lines = told(event("cases"))
    assert lines == ["data: 4 sets of real inputs to judge, 128 to calibrate on, with labels",
                     "  [dim]128 of 512 samples calibrate, 256 are judged[/]"]  # fmt: skip
    _, lines = told({"event": "cases", "at": 0.0, "profile": "x:1", "real": 0, "calibration": 0, "labelled": False,
                     "notes": [], "places": {}})  # fmt: skip
    assert lines == []


def test_quantising_says_how_much_and_how_long() -> None:
    _, lines = told(QUANTISED, QUANTISED | {"cached": True})
    assert lines[0] == "  quantised nncf bf16-rest: 53 layers in INT8, in 6.4 s"
    assert lines[1].endswith("from the cache")


def test_fp8_is_not_called_int8() -> None:
    _, lines = told(QUANTISED | {"precision": "fp8"})
    assert lines[0] == "  quantised nncf bf16-rest: 53 layers in FP8, in 6.4 s"


def test_casting_says_what_it_is_made_of_and_what_stays() -> None:
    course, _ = told(ENTRANTS)
    assert course.doing({"event": "lowering", "at": 2.0, "precision": "fp16", "method": ""}) == "casting to fp16"
    cast = {"event": "lowered", "at": 3.0, "precision": "fp16", "method": "", "nodes": 83, "kept": [], "snr_db": 55.1,
            "notes": ["mask '[m]': -3.4e+38 became -8192"], "cached": False, "seconds": 3.2}  # fmt: skip
    _, lines = told(cast)
    assert lines == ["  cast to FP16: 83 nodes, in 3.2 s", "    [dim]mask '\\[m]': -3.4e+38 became -8192[/]"]
    kept = [{"node": "mean", "why": "adds up to 7e+04"}]
    _, lines = told(cast | {"method": "qdq-symmetric", "kept": kept, "cached": True})
    assert lines[0] == "  cast to FP16 of qdq-symmetric: 83 nodes, 1 kept in FP32, from the cache"


def test_sensitivity_names_the_guiltiest() -> None:
    _, lines = told(event("sensitivity"), event("mixed"))
    assert lines[0].endswith("nncf bf16-rest: 12 groups measured")
    assert lines[1] == "  [dim]most of all /layer1/layer1.0/conv1/Conv and the 3 after it[/]"
    assert lines[2] == "mixed precision from onnxruntime int8 static t2 qdq stopped: the time budget was used up"


def test_a_time_budget_used_up_is_told_once() -> None:
    late = [tried(name, "not tried", "the time budget of 60 s was used up", None) for name in NAMES]
    _, lines = told(ENTRANTS, *late)
    assert lines[2:] == ["[yellow]the time budget of 60 s was used up: what is left is not tried[/]"]


def test_attempts_with_long_names_stay_aligned() -> None:
    _, lines = told(ENTRANTS, tried(NAMES[0]), tried(NAMES[1], "gate failed", "snr_db [1]", None))
    assert [line.index(word) for line, word in zip(lines[2:], ("passed", "gate failed"), strict=True)] == [41, 41]
    assert lines[-1].endswith("[dim]snr_db \\[1][/]")


def test_every_event_can_be_shown_on_a_terminal_and_off_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = [{"event": "reference", "at": 1.0, "oracle": "onnxruntime", "normalised_db": 200.0, "cross_check_db": 9.0,
             "agree_db": 40.0},
            {"event": "round", "at": 2.0, "number": 1, "medians": {}},
            {"event": "not measured", "at": 2.0, "instances": 2, "reason": "out of memory"},
            {"event": "chosen", "at": 3.0, "candidate": NAMES[0], "reason": "least median"},
            {"event": "finished", "at": 3.0, "seconds": 3.0}]  # fmt: skip
    for terminal in (False, True):
        monkeypatch.setattr(progress, "err", Console(stderr=True, force_terminal=terminal, highlight=False, width=160))
        with BuildProgress() as show:
            for one in (*builds.events(), tried(NAMES[0]), *rest):
                show(one)
        said = capsys.readouterr().err
        assert "disagrees, SNR 9 dB" in said
        assert "not measured with 2 instances: out of memory" in said


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress(quiet=True) as show:
        show(ENTRANTS)
    assert capsys.readouterr() == ("", "")


def test_what_goes_elsewhere_is_told() -> None:
    kit = {"event": "kit", "at": 1.0, "graphs": 2, "methods": ["qdq"], "program": True, "cases": 1, "left": 3}
    opened = {"event": "kit opened", "at": 0.0, "made": "2026-01-01", "source": "net[1].onnx", "methods": []}
    unqualified = {"event": "not qualified", "at": 2.0, "target": "a:b:c", "cases": 4, "left": 0}
    _, lines = told(kit, opened, unqualified, {"event": "qualifying", "at": 0.0, "candidate": NAMES[0]})
    assert lines == [
        "kit: the exported program, 2 lowered graphs, 1 set of inputs and answers, 3 left behind for want of room",
        "a build kit of net\\[1].onnx, made at 2026-01-01",
        "not qualified; 4 sets of inputs and answers travel in the bundle",
        f"qualifying {NAMES[0]}",
    ]
