"""Phases: where a build's time went, from the times of its log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tailorbird.builder.figures.guilt import Event
from tailorbird.builder.figures.lanes import Block, Lane, lanes_html, short

GROUNDWORK, CACHES, TRYING, QUANTISING = "groundwork", "caches", "candidates", "quantising"
GUILT, FINALS, TABLE, PROFILES, REST = "guilty layers", "finals", "latency table", "profiles", "rest"

_PHASES = {
    GROUNDWORK: ("started", "normalised", "cases", "source refused", "cross-check not feasible", "rewrites undone",
                 "reference", "candidates", "scored"),
    CACHES: ("cache", "cache notice"),
    TRYING: ("tried", "quantising", "lowering"),
    QUANTISING: ("quantised", "lowered"),
    GUILT: ("probing", "sensitivity", "mixed"),
    FINALS: ("round", "chosen"),
    TABLE: ("side by side", "not measured"),
    PROFILES: ("profiled", "not profiled"),
}  # fmt: skip
"""Which events end a piece of each phase's work."""

_TOLD = {
    GROUNDWORK: "groundwork: read, normalise, reference",
    CACHES: "fingerprint and caches",
    TRYING: "candidates: compile, gate, measure",
    QUANTISING: "quantising",
    GUILT: "mixed precision: which layers err",
    FINALS: "finals: measured in turn",
    TABLE: "instances side by side",
    PROFILES: "time by layer",
    REST: "the rest",
}


class Piece(msgspec.Struct, frozen=True):
    """Seconds of a build that led to one event."""

    phase: str
    start: float
    stop: float
    what: str


def pieces_of(events: Iterable[Event]) -> list[Piece]:
    """The whole build until it was finished, without a gap: what lies between two events led to the later one."""
    ends = {event: phase for phase, names in _PHASES.items() for event in names}
    found, before = [], 0.0
    for event in events:
        at = float(event.get("at", before))
        found.append(Piece(ends.get(event["event"], REST), before, max(at, before), _what(event)))
        before = max(at, before)
        if event["event"] == "finished":
            break
    return found


def phases_html(events: Sequence[Event]) -> str:
    """The section; nothing where there is no log."""
    pieces = pieces_of(events)
    total = pieces[-1].stop if pieces else 0.0
    if not total:
        return ""
    lanes = [lane for phase in _TOLD if (lane := _lane(phase, pieces, total)) is not None]
    said = f"{total:.1f} s in all, from left to right; each strip is a kind of work. The figures add up to the whole."
    return f'<h2>Where the build’s time went</h2><p class="lead">{said}</p>{lanes_html(lanes, total)}'


def _lane(phase: str, pieces: Sequence[Piece], total: float) -> Lane | None:
    mine = [piece for piece in pieces if piece.phase == phase and piece.stop > piece.start]
    spent = sum(piece.stop - piece.start for piece in mine)
    if not mine or spent < 0.05:
        return None
    blocks = tuple(Block(piece.start, piece.stop, f"{piece.what}\n{piece.stop - piece.start:.1f} s") for piece in mine)
    return Lane(_TOLD[phase], "work", blocks, f"{spent:.1f} s, {100 * spent / total:.0f} %")


def _what(event: Event) -> str:
    return short(" ".join(_words(event)))


def _words(event: Event) -> Iterator[str]:
    yield str(event["event"])
    for key in ("candidate", "method", "number", "instances", "kind"):
        if key in event:
            yield str(event[key])
