"""Whether the next batch waits for more rows, and until when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tailorbird.serving.batching.executors import Slots
from tailorbird.serving.batching.forms import Bucket, Form, Rules
from tailorbird.serving.batching.queueing import Queue, Reason
from tailorbird.serving.batching.requests import Part
from tailorbird.serving.batching.waiting import GRAIN, worthwhile


class Patience:
    """Holds back an idle executor where :func:`tailorbird.serving.batching.waiting.worthwhile` says that it pays.

    It never does beside a second idle executor, nor where requests wait that cannot be joined, nor longer than
    the bound since the oldest request came, nor beyond the moment a deadline allows.

    Args:
        queue: what waits.
        slots: the executors.
        rules: what a run takes.
        longest: seconds; None means half a run with the fewest rows.
    """

    def __init__(self, queue: Queue[Part], slots: Slots, rules: Rules, longest: float | None) -> None:
        self._queue = queue
        self._slots = slots
        self._rules = rules
        self._longest = longest
        self._alarm: asyncio.TimerHandle | None = None
        self._then = Reason.IDLE
        self._rung = False

    def bound(self, bucket: Bucket) -> float:
        """The longest wait in seconds; 0 where the bucket's costs are unknown."""
        run = bucket.costs.seconds(self._rules.fewest)
        return run / 2 if self._longest is None or not run else self._longest

    def holds(self, form: Form) -> bool:
        """Whether a request that has just come, while nothing else waits, should be held back."""
        bucket, room = form.bucket, self._rules.most - form.rows
        bound = self.bound(bucket)
        if bound < GRAIN or bucket.arrivals.gap > bound or room <= 0 or not self._slots.only_free():
            return False
        return self._rules.joins and worthwhile(bucket.costs.seconds, form.rows, room, bucket.arrivals, bound) > 0

    def waits(self, wake: Callable[[], None]) -> bool:
        """Whether the queue's next batch should be held back for now.

        Args:
            wake: called when it has waited enough; what it asks then is answered with False.
        """
        pause = 0.0 if self._rung else self._pause()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if pause < GRAIN:
            return False
        self._alarm = asyncio.get_running_loop().call_later(pause, self._ring, wake)
        return True

    def reason(self, found: Reason) -> Reason:
        """Why a batch that has just been taken has its size; forgets what was waited for."""
        then, self._then = self._then, Reason.IDLE
        return then if found is Reason.IDLE else found

    def stop(self) -> None:
        """Wait for nothing more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self, wake: Callable[[], None]) -> None:
        self._alarm = None
        self._rung = True
        wake()
        self._rung, self._then = False, Reason.IDLE

    def _pause(self) -> float:
        lead = self._queue.leader()
        bucket = lead.bucket
        bound = self.bound(bucket)
        if bound < GRAIN:
            return 0.0
        rows = self._queue.joinable()
        if rows is None or rows >= self._rules.most or not self._slots.only_free():
            return 0.0
        bound += lead.request.arrived - time.monotonic()
        if bound < GRAIN:
            return 0.0
        pause = worthwhile(bucket.costs.seconds, rows, self._rules.most - rows, bucket.arrivals, bound)
        return self._before_deadlines(bucket, pause) if pause else 0.0

    def _before_deadlines(self, bucket: Bucket, pause: float) -> float:
        """The pause, or half of what the earliest deadline leaves beside a run: timers are late now and then."""
        self._then = Reason.WAITED
        deadlines = [part.request.terms.deadline for part in self._queue if part.request.terms.deadline is not None]
        if not deadlines:
            return pause
        slack = min(deadlines) - bucket.costs.at_most(self._rules.most) - time.monotonic()
        if slack / 2 >= pause:
            return pause
        self._then = Reason.DEADLINE
        return max(0.0, slack / 2)
