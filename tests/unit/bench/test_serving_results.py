"""The serving benchmark's figures, file and tables."""

from pathlib import Path

import pytest
from rich.console import Console

from bench.serving_parts import page, tables
from bench.serving_parts.plan import Sheet, attempt, in_turn
from bench.serving_parts.queueing import floor
from bench.serving_parts.results import Contest, Entry, Figure, Goal, load, merged, save
from tailorbird.domain.errors import UsageError

ORDER = ("tiny", "resnet", "start", "batching")


def contest(name: str = "tiny", **changes: object) -> Contest:
    figures = {"rate": Figure((900.0, 1000.0, 1300.0)), "p50_us": Figure((100.0,))}
    plain = {
        "name": name,
        "date": "2026-11-23T00:00:00+00:00",
        "seconds": 12.0,
        "device": {"cpu": "X", "isa": "avx2", "cores": "2"},
        "versions": {"tailorbird": "0.1.0"},
        "rounds": 3,
        "facts": {"engine": "onnxruntime fp32"},
        "tables": {"servers": (Entry("ours", figures), Entry("theirs", note="it did not start"))},
        "goals": (Goal("requests/s", 1.62, ">=", 1.5, "x"), Goal("p50", 0.5, "<=", 0.4, "x")),
    }
    return Contest(**{**plain, **changes})  # type: ignore[arg-type]


def test_a_figure_is_its_median_and_half_its_interquartile_range() -> None:
    figure = Figure((1.0, 2.0, 3.0, 4.0, 50.0))
    assert (figure.median, figure.spread) == (3.0, 1.0)
    assert Figure((7.0,)).spread == 0.0


def test_ratios_are_taken_round_by_round() -> None:
    assert Figure((10.0, 40.0)).over(Figure((5.0, 10.0))) == Figure((2.0, 4.0))
    with pytest.raises(ValueError, match="shorter"):
        Figure((1.0, 2.0)).over(Figure((1.0,)))


def test_a_goal_says_whether_it_was_met() -> None:
    assert str(Goal("requests/s", 1.62, ">=", 1.5, "x")) == "requests/s: 1.62x (>= 1.5x: met)"
    assert str(Goal("p50", 0.5, "<=", 0.4, "x")) == "p50: 0.5x (<= 0.4x: NOT met)"


def test_what_is_saved_comes_back_and_a_fresh_contest_replaces_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "out" / "serving.json"
    first = merged((), contest("resnet"), ORDER)
    both = merged(first, contest("tiny"), ORDER)
    save(both, file)
    again = load(file)
    assert [one.name for one in again] == ["tiny", "resnet"]
    assert again == both
    newer = merged(again, contest("tiny", rounds=9), ORDER)
    assert [(one.name, one.rounds) for one in newer] == [("tiny", 9), ("resnet", 3)]


def test_no_file_holds_no_contests_and_a_strange_one_is_refused(tmp_path: Path) -> None:
    assert load(tmp_path / "none.json") == ()
    (tmp_path / "strange.json").write_text('{"rows": []}')
    with pytest.raises(UsageError, match=r"cannot read .*strange\.json.*\n?.*remove it to measure anew"):
        load(tmp_path / "strange.json")


def test_the_markdown_has_a_row_for_everybody_and_a_column_for_what_is_known() -> None:
    lines = list(tables.markdown(contest()))
    assert "| | requests/s, 16 connections | p50 µs, 1 connection |" in lines
    assert "| ours | 1,000 ±100 | 100 |" in lines
    assert "| theirs | – | – |" in lines
    assert "- theirs: it did not start" in lines
    assert "- p50: 0.5x (<= 0.4x: NOT met)" in lines


def test_the_terminal_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show([contest()], Console(width=200, force_terminal=False))
    shown = capsys.readouterr().out
    assert "1,000 ±100" in shown
    assert "theirs: it did not start" in shown
    assert "load average 0.0 at the beginning" in shown


def test_every_layout_belongs_to_a_section_of_the_page(tmp_path: Path) -> None:
    assert {layout.contest for layout in tables.LAYOUTS} == set(page.SECTIONS) == set(ORDER)
    page.write([contest()], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("# Serving, measured\n")
    assert "## What a server itself costs" in text
    assert "| ours | 1,000 ±100 | 100 |" in text
    assert text.count("Not measured yet: `make serving-bench ARGS='--contest resnet'`.") == 1


def test_each_round_begins_with_another_one() -> None:
    assert list(in_turn(3, "ABC")) == [(0, "A"), (0, "B"), (0, "C"), (1, "B"), (1, "C"), (1, "A"),
                                       (2, "C"), (2, "A"), (2, "B")]  # fmt: skip


def test_a_sheet_keeps_what_is_finite_and_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    sheet = Sheet()
    sheet.note("ours", rate=1.0, p99_ms=float("inf"))
    sheet.note("ours", rate=2.0, p99_ms=5.0)
    with attempt("theirs", sheet):
        raise RuntimeError("the connection\n  ended")
    assert sheet.figure("ours", "rate") == Figure((1.0, 2.0))
    assert sheet.figure("ours", "p99_ms") == Figure((5.0,))
    assert sheet.figure("theirs", "rate") is None
    assert [(one.name, one.note) for one in sheet.entries()] == [("ours", ""), ("theirs", "the connection ended")]
    assert "theirs: the connection ended" in capsys.readouterr().err


def test_with_nobody_else_there_a_run_takes_its_time() -> None:
    assert floor(rate=0.01, seconds=10_000.0, seed=0, run_seconds=0.02, instances=1) == pytest.approx(0.02)


def test_the_tail_of_a_busy_queue_is_that_of_theory() -> None:
    """M/D/1 at 70 %: the tail decays as exp(-t x) with x the positive root of 0.7 (exp(x) - 1) = x, about 0.76."""
    tail = floor(rate=70.0, seconds=2000.0, seed=1, run_seconds=0.01, instances=1) / 0.01
    assert 5.5 < tail < 8.0
    assert floor(rate=70.0, seconds=2000.0, seed=1, run_seconds=0.02, instances=2) / 0.02 < 0.75 * tail
