"""Where a build's time went, from its log."""

import itertools
import time
from typing import Any

import pytest

from bench.timeline import PHASES, Watch, phases


def log(*events: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"event": event, "at": at} for event, at in events]


def test_each_event_ends_its_phase() -> None:
    events = log(("started", 1), ("normalised", 3), ("cases", 4), ("reference", 9), ("candidates", 9.5), ("tried", 12),
                 ("quantised", 20), ("tried", 22), ("round", 30), ("chosen", 31), ("finished", 33))  # fmt: skip
    found = phases(events, 35)
    assert found == {
        "reading": 4.5,
        "reference": 5,
        "quantising": 8,
        "heats": 4.5,
        "mixed": 0,
        "finals": 9,
        "sealing": 4,
    }


def test_heats_of_mixed_candidates_are_the_search_for_mixed_precision() -> None:
    found = phases(log(("tried", 10), ("sensitivity", 15), ("tried", 18), ("mixed", 19), ("round", 20)), 20)
    assert (found["heats"], found["mixed"], found["finals"]) == (10, 9, 1)


def test_an_unknown_event_counts_to_what_went_on_before() -> None:
    found = phases(log(("reference", 2), ("something new", 5)), 5)
    assert found["reference"] == 5


def test_all_phases_are_there_and_add_up() -> None:
    kinds = ("started", "normalised", "reference", "tried", "quantised", "sensitivity", "tried", "round", "chosen")
    events = log(*zip(kinds, itertools.accumulate(range(1, 10)), strict=True))
    found = phases(events, 50.5)
    assert tuple(found) == PHASES
    assert sum(found.values()) == pytest.approx(50.5)


def test_the_watch_counts_what_was_really_tried() -> None:
    watch = Watch()
    for status in ("slower", "gate failed", "not tried"):
        watch({"event": "tried", "at": 1.0, "status": status, "candidate": "x"})
    watch({"event": "chosen", "at": 2.0, "candidate": "x"})
    assert watch.tried == 2
    assert len(watch.events) == 4


def test_the_watch_counts_from_when_it_was_made() -> None:
    watch = Watch()
    time.sleep(0.02)
    assert 0.02 <= watch.seconds < 5
