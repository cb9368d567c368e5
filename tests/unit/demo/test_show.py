import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tailorbird.api import Result
from tailorbird.cli import render
from tailorbird.cli.demo import DemoProgress
from tailorbird.demo.boxes import Box
from tailorbird.demo.models import DETECTOR, RECOGNISER
from tailorbird.demo.pages import Page
from tailorbird.demo.plot import gain, kind
from tailorbird.demo.reader import Reading, ReadLine
from tailorbird.demo.show import write_show
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.outcome import Outcome, Status
from tests import bundles

ROW = LatencyRow("opt", {}, 1, 1, Latency(9, 9.5, 10, 10.5, 11, 12, 50))


def outcome(threads: int, median: float | None, status: Status = Status.SLOWER) -> Outcome:
    row = msgspec.structs.replace(ROW, latency=msgspec.structs.replace(ROW.latency, median=median or 0.0))
    latency = (row,) if median is not None else ()
    return Outcome(bundles.candidate(threads=threads), status, "because <b>", latency=latency)


def result(*outcomes: Outcome, baseline: Outcome | None = None) -> Result:
    name = baseline.candidate.name if baseline else ""
    return Result(outcomes, bundles.manifest(outcomes=outcomes, baseline=name), None, None)


CHOSEN, RIVAL = outcome(4, 10.0, Status.CHOSEN), outcome(3, 25.0)
LOOKED_AT, CRASHED = outcome(2, 40.0, Status.STOPPED), outcome(1, None, Status.CRASHED)
RESULT = result(CHOSEN, RIVAL, LOOKED_AT, CRASHED, baseline=RIVAL)


def reading(*texts: str) -> Reading:
    page = Page("sign", np.zeros((640, 480, 3), np.uint8), ("Tea & cake", "3.80"))
    lines = tuple(ReadLine(text, 0.97, (Box(40, 50 * row, 90, 50 * row + 30, 1.0),)) for row, text in enumerate(texts))
    return Reading(page, lines, 80.0, 7.0, 120.0, 1 + len(texts))


def test_gain_is_the_baseline_over_the_chosen() -> None:
    assert gain(DETECTOR, RESULT) == ("2.50×", "the speed of ONNX Runtime’s default: ocr-detect")


def test_gain_is_honest_when_the_default_won() -> None:
    won = result(CHOSEN, RIVAL, baseline=CHOSEN)
    assert gain(DETECTOR, won) == ("1×", "the speed of ONNX Runtime’s default, which won: ocr-detect")


def test_gain_says_when_there_was_no_baseline() -> None:
    assert gain(DETECTOR, result(CHOSEN)) == ("–", "ONNX Runtime’s default was not measured: ocr-detect")


def test_each_kind_of_candidate_has_its_look() -> None:
    assert [kind(one, RESULT) for one in RESULT.table] == ["chosen", "rival", "first", "other"]


def test_the_page_shows_what_was_written_read_and_chosen(tmp_path: Path) -> None:
    results = ((DETECTOR, RESULT), (RECOGNISER, RESULT))
    path = write_show(tmp_path / "demo.html", results, (reading("Tea & cake", "3.B0"),))
    page = path.read_text("utf-8")
    assert page.count("<td>Tea &amp; cake") == 2
    assert page.count('class="n right"') == page.count('class="n wrong"') == 1
    assert "because &lt;b&gt;" in page
    assert "crashed" in page
    assert "2.50×" in page
    assert [path.name for path in tmp_path.iterdir()] == ["demo.html"]


def test_a_page_read_short_says_nothing_there(tmp_path: Path) -> None:
    page = write_show(tmp_path / "demo.html", ((DETECTOR, RESULT),), (reading("Tea & cake"),)).read_text("utf-8")
    assert "<td>nothing" in page


def test_the_terminal_shows_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "out", render._console(sys.stdout))
    shown = DemoProgress()
    shown.built(DETECTOR, RESULT)
    shown.read(reading("Tea & cake", "3.B0"))
    told = capsys.readouterr().out
    assert "ocr-detect: 2.50x the speed of ONNX Runtime's default" in told
    assert [line.split()[-1] for line in told.splitlines() if " 97 % " in line] == ["✓", "✗"]
    assert "sign  93.3 % of the characters right, 120 ms: lines found in 80 ms, 2 strips read in 7.0 ms each" in told
