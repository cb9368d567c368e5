"""Progress of a build: a live line on a terminal, plain lines otherwise."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from tailorbird.cli.render import err, ms


class BuildProgress:
    """Shows the build log's events as they come; call it with each event."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._total = 0
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

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of the build log."""
        if self._quiet:
            return
        text = _text(event)
        if event["event"] == "candidates":
            self._total = len(event["names"])
        if text:
            err.print(f"[dim]{event['at']:7.1f} s[/]  {text}")
        if self._task is not None:
            advance = 1 if event["event"] == "tried" else 0
            self._bar.update(self._task, description=_doing(event), advance=advance, total=self._total or None)


def _text(event: dict[str, Any]) -> str:
    match event["event"]:
        case "normalised":
            notes = "".join(f"; {note}" for note in event["notes"])
            return f"normalised ({', '.join(event['passes']) or 'nothing to do'}{notes})"
        case "reference":
            return f"reference outputs by {event['oracle']}{_second_opinion(event)}"
        case "candidates":
            return f"{len(event['names'])} candidates"
        case "tried":
            time = f"{ms(event['median'])} ms  " if event["median"] is not None else ""
            return f"  {event['candidate']:<34} {event['status']:<14} {time}[dim]{_escaped(event['reason'])}[/]"
        case "chosen":
            return f"[bold green]{event['candidate']}[/]: {_escaped(event['reason'])}"
    return ""


def _second_opinion(event: dict[str, Any]) -> str:
    """Two evaluators of one graph that differ by more than rounding: one of them is wrong, and people should know."""
    checked = event["cross_check_db"]
    if checked is None:
        return ""
    if checked < event["agree_db"]:
        return f"; [yellow]ONNX's reference evaluator disagrees, SNR {checked:.0f} dB: look at this model[/]"
    return f", cross-checked at {checked:.0f} dB"


def _doing(event: dict[str, Any]) -> str:
    doing = {"started": "reading the model", "normalised": "laying out inputs", "cases": "running the reference",
             "round": "finalists in turn", "chosen": "sealing"}  # fmt: skip
    return doing.get(event["event"], "building, gating, measuring")


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("[", "\\[")
