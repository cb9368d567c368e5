"""Notes: what a build did with the data, what it reused, and what it left out, a sentence each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape

from tailorbird.builder.figures.guilt import Event
from tailorbird.domain.candidate import Candidate


def notes_html(chosen: Candidate, events: Iterable[Event]) -> str:
    """The section; nothing where there is nothing to note.

    Args:
        chosen: the chosen candidate, for the layers that it keeps in float.
        events: lines of the build log.
    """
    kept = chosen.quantisation.kept if chosen.quantisation else ()
    layers = "1 layer stays" if len(kept) == 1 else f"{len(kept)} layers stay"
    names = ", ".join(f"<code>{escape(name)}</code>" for name in kept)
    folded = f"<details><summary>{layers} in float</summary><p>{names}</p></details>" if kept else ""
    lines = "".join(f"<li>{escape(line)}</li>" for event in events for line in _noted(event))
    listed = f"<ul>{lines}</ul>" if lines else ""
    return f"<h2>Notes</h2>{listed}{folded}" if listed or folded else ""


def _noted(event: Event) -> Iterable[str]:
    tells = _NOTES.get(event["event"])
    return tells(event) if tells else ()


def _reused(event: Event) -> Iterable[str]:
    return [f"From the cache: {event['kind']}, made {event['made']}."] if event.get("hit") else []


def _lowering(event: Event) -> Iterable[str]:
    """What it did, and of the nodes that stay in FP32 their number and the first: the build log has them all."""
    kept = event["kept"]
    stay = [f"{len(kept)} of its nodes stay in FP32, the first is {kept[0]['node']}: {kept[0]['why']}"] if kept else []
    return [*event["notes"], *stay]


_NOTES: Mapping[str, Callable[[Event], Iterable[str]]] = {
    "cache": _reused,
    "cache notice": lambda event: [f"Cache, {event['kind']}: {event['what']}: {event['reason']}"],
    "cases": lambda event: event.get("notes", ()),
    "candidates": lambda event: [f"Left out: {reason}." for reason in event.get("left_out", ())],
    "quantised": lambda event: [f"{event['method']}: {note}" for note in event["notes"]],
    "lowered": lambda event: [f"{event['precision'].upper()}: {note}" for note in _lowering(event)],
    "mixed": lambda event: [f"Mixed precision from {event['seed']}: {event['stopped']}"],
    "not measured": lambda event: [f"Not measured with {event['instances']} instances: {event['reason']}"],
    "not profiled": lambda event: [f"No times by layer of {event['candidate']}: {event['reason']}"],
}
