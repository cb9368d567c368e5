"""The build log: one JSON object a line, in the order things happened.

Every line has ``event`` (below), ``at`` (seconds since the build began) and the event's own fields:

========================  ==============================================================================
key made                  key (id), path: this machine had no key to sign with
started                   source, config, versions, device
cache                     kind, about, key, hit, made (the entry, or the nearest earlier one), changed (since that)
cache notice              what (healed, dropped, waiting, not kept), kind, reason
normalised                passes, notes, signature
cases                     profile, places (shapes), real (sets of the user's), calibration (sets), labelled, notes
source refused            reason: no runtime takes the source as it is, so the repaired graph is the reference
cross-check not feasible  backend, reason
rewrites undone           passes, snr_db: the proof failed, and ``normalised`` comes again without them
reference                 oracle, normalised_db (the proof), cross_check_db (a second oracle, or null), agree_db
candidates                names, baseline (what speed-ups are told against, or empty), left_out (methods, and why)
scored                    metric, scores (the source's own, by place)
quantising                method: one that no build has made before
quantised                 method, precision, units (how many run quantised), cached, notes, seconds
lowering                  precision, method (how it was quantised, or empty): one that no build has made before
lowered                   precision, method, nodes, kept (in FP32, and why), snr_db (or null), notes, cached, seconds
said                      candidate, messages: what the runtime said while it compiled, as it compiles
exported                  seconds, cached: the PyTorch program, as one file that backends compile
tried                     candidate, status, reason, median (ms, or null), seconds
probing                   candidate, number, of: one group's error is being measured
sensitivity               candidate, groups (units, first, noise by output; the guiltiest first)
mixed                     seed, stopped: why the search for mixed precision ended before its end
round                     number, medians (cost in ms by candidate)
chosen                    candidate, reason
side by side              instances: the latency table now has this many side by side, too
not measured              instances, reason: the latency table lacks this many side by side
profiled                  candidate, layers, ms (of all layers together), seconds
not profiled              candidate, reason
not lowered               candidate, reason: a build kit lacks its graph, or the program
not foretold              candidate, reason: no runtime here takes its graph, so nothing is known of its accuracy
kit                       graphs, methods, program, cases (sets of inputs), left (sets for which there was no room)
kit opened                made, source, methods, program: the build goes on from a kit
not qualified             target, cases (sets that travel), left: nothing was run, the bundle is to be qualified
qualifying                candidate, device, parent (digest of the unqualified manifest)
finished                  seconds
========================  ==============================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

Observer = Callable[[dict[str, Any]], None]
"""Receives each event as it happens: progress bars, plain lines, tests."""


class BuildLog:
    """Appends events to a file and shows them to observers."""

    def __init__(self, path: Path, *observers: Observer) -> None:
        self._path = path
        self._observers = observers
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the build began."""
        return time.monotonic() - self._start

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; ``fields`` are plain data or msgspec structs."""
        line = {"event": event, "at": round(self.seconds, 3), **fields}
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
        for observer in self._observers:
            observer(line)
