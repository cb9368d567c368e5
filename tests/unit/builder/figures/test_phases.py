"""Phases: a build's seconds, without a gap and counted once."""

import itertools
import re

import pytest

from tailorbird.builder.figures.guilt import Event
from tailorbird.builder.figures.phases import phases_html, pieces_of

EVENTS: list[Event] = [
    {"event": "started", "at": 0.5},
    {"event": "normalised", "at": 1.0},
    {"event": "reference", "at": 3.0},
    {"event": "tried", "at": 5.0, "candidate": "a <b>"},
    {"event": "quantising", "at": 5.1, "method": "nncf"},
    {"event": "quantised", "at": 9.0, "method": "nncf"},
    {"event": "tried", "at": 10.0, "candidate": "b"},
    {"event": "probing", "at": 11.5, "number": 1, "of": 4},
    {"event": "round", "at": 13.0, "number": 1},
    {"event": "chosen", "at": 13.0, "candidate": "b"},
    {"event": "something of tomorrow", "at": 14.0},
    {"event": "finished", "at": 15.0},
    {"event": "key made", "at": 20.0},
]


def test_pieces_have_no_gap_and_end_with_the_build() -> None:
    pieces = pieces_of(EVENTS)
    assert pieces[0].start == 0.0
    assert pieces[-1].stop == 15.0
    assert all(one.stop == two.start for one, two in itertools.pairwise(pieces))


def test_the_figures_add_up_to_the_whole() -> None:
    page = phases_html(EVENTS)
    figures = [float(seconds) for seconds in re.findall(r">([\d.]+) s, \d+ %</div>", page)]
    assert len(figures) == 6
    assert sum(figures) == pytest.approx(15.0, abs=0.05 * len(figures))
    assert "15.0 s in all" in page


def test_work_is_told_by_what_it_led_to() -> None:
    page = phases_html(EVENTS)
    for text in ("quantising</div>", "3.9 s, 26 %", "mixed precision: which layers err", "1.5 s, 10 %",
                 "candidates: compile, gate, measure", "3.1 s, 21 %", "tried a &lt;b&gt;\n2.0 s"):  # fmt: skip
        assert text in page, text


def test_a_clock_that_jumps_back_takes_nothing_away() -> None:
    pieces = pieces_of(
        [{"event": "started", "at": 2.0}, {"event": "tried", "at": 1.0}, {"event": "finished", "at": 3.0}]
    )
    assert [(piece.start, piece.stop) for piece in pieces] == [(0.0, 2.0), (2.0, 2.0), (2.0, 3.0)]


def test_without_a_log_there_is_no_section() -> None:
    assert phases_html([]) == ""
    assert phases_html([{"event": "old"}]) == ""
