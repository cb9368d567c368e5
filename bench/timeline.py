"""Where a build's time goes: its log's events, summed up by phase."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PHASES = ("reading", "reference", "quantising", "heats", "mixed", "finals", "sealing")

_ENDS = {
    "started": "reading",
    "normalised": "reading",
    "cases": "reading",
    "source refused": "reference",
    "cross-check not feasible": "reference",
    "rewrites undone": "reference",
    "reference": "reference",
    "candidates": "reading",
    "quantised": "quantising",
    "tried": "heats",
    "sensitivity": "mixed",
    "mixed": "mixed",
    "round": "finals",
    "chosen": "finals",
    "not measured": "sealing",
    "finished": "sealing",
}
"""The phase that an event ends: the time since the event before it counts there."""


@dataclass
class Watch:
    """An observer of one build: keeps what is needed of every event."""

    started: float = field(default_factory=time.perf_counter)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, event: dict[str, Any]) -> None:
        """Note one event of the build log."""
        self.events.append({key: event[key] for key in ("event", "at", "status") if key in event})

    @property
    def seconds(self) -> float:
        """Seconds since the build was asked for."""
        return time.perf_counter() - self.started

    @property
    def tried(self) -> int:
        """Candidates that were built at least."""
        return sum(one["event"] == "tried" and one.get("status") != "not tried" for one in self.events)


def phases(events: Sequence[dict[str, Any]], total: float) -> dict[str, float]:
    """Seconds by phase, all of :data:`PHASES`; they add up to ``total``.

    Heats of mixed candidates count as ``mixed``. An event that is not known counts to what went on before it. What
    comes after the last event is sealing: latencies side by side, the manifest, the bundle.
    """
    spent = dict.fromkeys(PHASES, 0.0)
    last, phase, mixing = 0.0, PHASES[0], False
    for one in events:
        phase = _ENDS.get(one["event"], phase)
        mixing = mixing or phase == "mixed"
        phase = "mixed" if mixing and phase in ("heats", "quantising") else phase
        spent[phase] += one["at"] - last
        last = one["at"]
    spent["sealing"] += max(0.0, total - last)
    return {name: round(seconds, 2) for name, seconds in spent.items()}
