"""Progress of a build: a live line on a terminal, plain lines otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from tailorbird.cli.cache import words
from tailorbird.cli.render import err, ms
from tailorbird.domain.outcome import Status

Event = dict[str, Any]

_WIDEST = 50
"""Columns that names of candidates are given at most."""

MOST_CHANGES = 4
"""Changed ingredients that progress names; --explain-cache has them all."""

_DOING = {"started": "reading the model", "normalised": "laying out inputs", "cases": "running the reference",
          "quantising": "quantising {method}", "lowering": "casting to {precision}",
          "probing": "which layers cost the accuracy: {number} of {of} groups",
          "sensitivity": "mixed precision", "round": "finalists in turn", "chosen": "measuring side by side",
          "finished": "sealing"}  # fmt: skip


class BuildProgress:
    """Shows the build log's events as they come; call it with each event."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._course = Course()
        self._bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
                             TimeElapsedColumn(), console=err, transient=True)  # fmt: skip
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if err.is_terminal and not self._quiet:
            self._bar.start()
            self._task = self._bar.add_task("reading the model", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:  # without a terminal nothing was started, and stopping prints an empty line
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event of the build log."""
        if self._quiet:
            return
        self._course.follow(event)
        for text in self._course.lines(event):
            err.print(f"[dim]{event['at']:7.1f} s[/]  {text}", soft_wrap=True)
        if self._task is not None:
            self._bar.update(self._task, description=_escaped(self._course.doing(event)),
                             completed=self._course.tried, total=self._course.total or None)  # fmt: skip


class Course:
    """What a build's events come to, in words: lines for what happened, and what goes on now."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._late = 0
        self.tried = 0
        """Candidates that have their outcome, those that were not tried among them."""

    @property
    def total(self) -> int:
        """Candidates known; mixed ones join as they are tried."""
        return max(len(self._names), self.tried)

    def follow(self, event: Event) -> None:
        """Take notice of one event; call it before the others."""
        match event["event"]:
            case "candidates":
                self._names = list(event["names"])
            case "tried":
                self.tried += 1
                self._late += _is_late(event)

    def doing(self, event: Event) -> str:
        """What goes on after an event, for the live line."""
        known = _DOING.get(event["event"])
        if known:
            return known.format(**event)
        if self.tried >= len(self._names):
            return "mixed precision and finals" if self._names else "running the reference"
        name = self._names[self.tried]
        return f"{self.tried + 1}/{self.total} trying {name}"

    def lines(self, event: Event) -> Iterator[str]:
        """What to print of an event, as markup."""
        kind = event["event"]
        if kind == "tried" and _is_late(event):
            if self._late == 1:  # the rest would say the same
                yield f"[yellow]{_escaped(event['reason'])}: what is left is not tried[/]"
        elif kind == "tried":
            width = min(_WIDEST, max(map(len, self._names), default=34))
            yield _tried(event, width)
        elif kind in _TEXTS:
            yield from _TEXTS[kind](event)


def _key_made(event: Event) -> Iterator[str]:
    yield f"made a key to sign bundles with, {_escaped(event['path'])}, and trusted it on this machine"


def _cache(event: Event) -> Iterator[str]:
    """Of a finished engine whether it was there and what changed; of other kinds that they were there."""
    if event["kind"] == "engines" and event["hit"]:
        yield f"nothing changed since it was built at {event['made']}: the engine is the cache's"
    elif event["kind"] == "engines" and event["changed"]:
        changed = [f"{words(change)}" for change in event["changed"]]
        more = f" and {len(changed) - MOST_CHANGES} more" if len(changed) > MOST_CHANGES else ""
        yield f"changed since the build of {event['made']}: {_escaped(', '.join(changed[:MOST_CHANGES]))}{more}"
    elif event["hit"] and event["kind"] in _FROM_CACHE:
        yield f"{_FROM_CACHE[event['kind']]} from the cache"


_FROM_CACHE = {"normalised": "the normalised graph is", "references": "inputs and reference outputs are"}


def _cache_notice(event: Event) -> Iterator[str]:
    kind, reason = event["kind"], _escaped(event["reason"])
    said = {"healed": f"an entry of the cache was damaged ({kind}: {reason}) and is made anew",
            "dropped": f"an entry of the cache is not this build's ({kind}: {reason}) and is made anew",
            "waiting": f"another build makes the same ({kind}): waiting for it",
            "not kept": f"the cache cannot keep this ({kind}): {reason}"}  # fmt: skip
    yield f"[yellow]{said[event['what']]}[/]"


def _normalised(event: Event) -> Iterator[str]:
    notes = "".join(f"; {note}" for note in event["notes"])
    yield f"normalised ({_escaped(', '.join(event['passes']) or 'nothing to do')}{_escaped(notes)})"


def _cases(event: Event) -> Iterator[str]:
    """How the data was dealt out; nothing where all inputs are synthetic and nobody gave any."""
    facts = [f"{event[key]} {what}" for key, what in _SPLIT.items() if event.get(key)]
    if facts:
        yield f"data: {', '.join(facts)}{', with labels' if event.get('labelled') else ''}"
    yield from (f"  [dim]{_escaped(note)}[/]" for note in event.get("notes", ()))


_SPLIT = {"real": "sets of real inputs to judge", "calibration": "to calibrate on"}


def _reference(event: Event) -> Iterator[str]:
    yield f"reference outputs by {event['oracle']}{_second_opinion(event)}"


def _candidates(event: Event) -> Iterator[str]:
    yield f"{_count(len(event['names']), 'candidate')}"
    yield from (f"  [dim]left out: {_escaped(reason)}[/]" for reason in event.get("left_out", ()))


def _quantised(event: Event) -> Iterator[str]:
    how = "from the cache" if event["cached"] else f"in {event['seconds']:.1f} s"
    yield f"  quantised {_escaped(event['method'])}: {_count(event['units'], 'layer')} in {_precision(event)}, {how}"
    yield from (f"    [dim]{_escaped(note)}[/]" for note in event["notes"])


def _precision(event: Event) -> str:
    return str(event.get("precision", "int8")).upper()


def _lowered(event: Event) -> Iterator[str]:
    how = "from the cache" if event["cached"] else f"in {event['seconds']:.1f} s"
    of = f" of {_escaped(event['method'])}" if event["method"] else ""
    kept = f", {len(event['kept'])} kept in FP32" if event["kept"] else ""
    yield f"  cast to {_precision(event)}{of}: {_count(event['nodes'], 'node')}{kept}, {how}"
    yield from (f"    [dim]{_escaped(note)}[/]" for note in event["notes"])


def _sensitivity(event: Event) -> Iterator[str]:
    groups = event["groups"]
    yield f"which layers cost the accuracy of {_escaped(event['candidate'])}: {_count(len(groups), 'group')} measured"
    if groups:
        worst = groups[0]
        more = f" and the {worst['units'] - 1} after it" if worst["units"] > 1 else ""
        yield f"  [dim]most of all {_escaped(worst['first'])}{more}[/]"


def _mixed(event: Event) -> Iterator[str]:
    yield f"mixed precision from {_escaped(event['seed'])} stopped: {_escaped(event['stopped'])}"


def _not_lowered(event: Event) -> Iterator[str]:
    yield f"  [yellow]not in the kit: the graph of {_escaped(event['candidate'])}[/]: {_escaped(event['reason'])}"


def _kit(event: Event) -> Iterator[str]:
    left = f", {event['left']} left behind for want of room" if event["left"] else ""
    graphs, sets = _count(event["graphs"], "lowered graph"), _count(event["cases"], "set")
    program = "the exported program, " if event["program"] else ""
    yield f"kit: {program}{graphs}, {sets} of inputs and answers{left}"


def _kit_opened(event: Event) -> Iterator[str]:
    yield f"a build kit of {_escaped(event['source'])}, made at {event['made']}"


def _not_qualified(event: Event) -> Iterator[str]:
    left = f", {event['left']} left behind for want of room" if event["left"] else ""
    yield f"not qualified; {_count(event['cases'], 'set')} of inputs and answers travel in the bundle{left}"


def _qualifying(event: Event) -> Iterator[str]:
    yield f"qualifying {_escaped(event['candidate'])}"


def _not_measured(event: Event) -> Iterator[str]:
    yield f"[yellow]not measured with {event['instances']} instances: {_escaped(event['reason'])}[/]"


def _chosen(event: Event) -> Iterator[str]:
    yield f"[bold green]{_escaped(event['candidate'])}[/]: {_escaped(event['reason'])}"


_TEXTS = {"cache": _cache, "cache notice": _cache_notice, "normalised": _normalised, "cases": _cases,
          "reference": _reference, "candidates": _candidates,
          "quantised": _quantised, "lowered": _lowered, "sensitivity": _sensitivity, "mixed": _mixed,
          "not measured": _not_measured,
          "chosen": _chosen, "key made": _key_made, "not lowered": _not_lowered, "kit": _kit, "kit opened": _kit_opened,
          "not qualified": _not_qualified, "qualifying": _qualifying}  # fmt: skip


def _tried(event: Event, width: int) -> str:
    time = f"{ms(event['median'])} ms  " if event["median"] is not None else ""
    verdict = "passed" if event["status"] == Status.SLOWER else event["status"]  # than which is known at the end
    line = f"  {_escaped(event['candidate']):<{width}} {verdict:<14} {time}[dim]{_escaped(event['reason'])}[/]"
    return f"[dim]{line}[/]" if event["status"] == Status.NOT_TRIED else line


def _is_late(event: Event) -> bool:
    return event["status"] == Status.NOT_TRIED and "time budget" in event["reason"]


def _second_opinion(event: Event) -> str:
    """Two evaluators of one graph that differ by more than rounding: one of them is wrong, and people should know."""
    checked = event["cross_check_db"]
    if checked is None:
        return ""
    if checked < event["agree_db"]:
        return f"; [yellow]ONNX's reference evaluator disagrees, SNR {checked:.0f} dB: look at this model[/]"
    return f", cross-checked at {checked:.0f} dB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("[", "\\[")
