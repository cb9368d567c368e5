"""Statistics: what each version has answered, how long each phase took, and why its batches had the size they had.

Plain numbers, written by the event loop alone (but for crashes), because every request passes here: metrics and the
statistics operation read them when they are asked.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from enum import StrEnum

import msgspec

from tailorbird.domain.errors import InputError, NotReady, Overloaded
from tailorbird.serving.batching.runs import Batch

BOUNDS = tuple(base * 10.0**power for power in range(-5, 2) for base in (1.0, 2.5, 5.0))
"""Upper bounds of the histograms' buckets, in seconds: 10 µs to 50 s."""

RECENT = 512
ERRORS = 20
SIZES = 256
"""Different numbers of rows that are told apart."""


class Failure(StrEnum):
    """Why a request got no answer, in Triton's words."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class Phase(StrEnum):
    """Where a request's time goes."""

    QUEUE = "queue"
    ASSEMBLE = "assemble"
    RUN = "run"
    REPLY = "reply"


class Histogram:
    """Counts by :data:`BOUNDS`."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0
        """Of all values, in seconds."""

    def add(self, seconds: float, times: int = 1) -> None:
        """One more value, or several equal ones."""
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.sum += seconds * times

    @property
    def count(self) -> int:
        """Values so far."""
        return sum(self.counts)


class Trouble(msgspec.Struct, frozen=True):
    """A recent failure, for the status page."""

    at: float
    """Unix time."""
    kind: Failure
    what: str


class VersionStatistics:
    """The numbers of one version. Seconds throughout."""

    def __init__(self) -> None:
        self.answered = Histogram()
        """Whole requests that were answered, as the data plane saw them."""
        self.failed_seconds = 0.0
        self.failures: Counter[Failure] = Counter()
        self.phases = {phase: Histogram() for phase in Phase}
        """Queue is counted by request, the others by run."""
        self.rows = 0
        """Rows that were run and answered."""
        self.runs = 0
        self.padding = 0
        """Rows that were run to fill a batch."""
        self.sizes: dict[int, Histogram] = {}
        """Seconds of runs, by rows: of the first :data:`SIZES` numbers of rows that come, as clients choose them."""
        self.moving: dict[int, list[float]] = {}
        """By rows, too: seconds of assembling in all, and of replying."""
        self.reasons: Counter[str] = Counter()
        """How often a batch had its size for each reason."""
        self.crashes = 0
        """Times that an instance died."""
        self._crashing = threading.Lock()
        self.last = 0.0
        """Unix time of the last answer."""
        self.recent: deque[float] = deque(maxlen=RECENT)
        """Seconds of the latest answers."""
        self.troubles: deque[Trouble] = deque(maxlen=ERRORS)

    def answer(self, seconds: float) -> None:
        """A request was answered."""
        self.answered.add(seconds)
        self.recent.append(seconds)
        self.last = time.time()

    def failure(self, error: BaseException, seconds: float) -> None:
        """A request was not."""
        kind = kind_of(error)
        self.failures[kind] += 1
        self.failed_seconds += seconds
        self.troubles.append(Trouble(time.time(), kind, getattr(error, "what", type(error).__name__)[:300]))

    def crash(self) -> None:
        """An instance died; from any thread."""
        with self._crashing:
            self.crashes += 1

    def batch(self, batch: Batch) -> None:
        """A run is over; an observer of the batcher."""
        phases = self.phases
        self.runs += 1
        self.padding += batch.padding
        self.reasons[batch.reason] += 1
        if not batch.failed:
            self.rows += batch.rows
        for seconds in batch.queued:
            phases[Phase.QUEUE].add(seconds)
        phases[Phase.ASSEMBLE].add(batch.assembling)
        phases[Phase.RUN].add(batch.running)
        phases[Phase.REPLY].add(batch.replying)
        self._by_size(batch)

    def _by_size(self, batch: Batch) -> None:
        runs = self.sizes.get(batch.rows)
        if runs is None:
            if len(self.sizes) == SIZES:
                return
            runs = self.sizes[batch.rows] = Histogram()
            self.moving[batch.rows] = [0.0, 0.0]
        runs.add(batch.running)
        moving = self.moving[batch.rows]
        moving[0] += batch.assembling
        moving[1] += batch.replying


def kind_of(error: BaseException) -> Failure:
    """What Triton would call a failure."""
    import asyncio

    if isinstance(error, asyncio.CancelledError):
        return Failure.CANCELED
    if isinstance(error, (Overloaded, NotReady)):
        return Failure.REJECTED
    return Failure.OTHER if isinstance(error, InputError) else Failure.BACKEND
