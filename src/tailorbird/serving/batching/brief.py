"""Brief runs: so short that handing them to a thread costs more than they take. The event loop does them itself.

The way to another thread and back (a queue, two wake-ups, the interpreter's lock passed on twice) takes as long as a
small model's whole run, and while the loop waits for it, it does nothing better. So where the engine's latency table
says that a run takes at most :data:`BRIEF_SECONDS`, the executor is asked to run at once. The bound is kept by what is
seen: each run in the loop corrects the table, and when runs of a size usually take longer than the bound they go to
the thread again. Of those, one in :data:`PROBE` is tried in the loop, so that there is a way back.

That is for executors that can run in the caller's thread, never for processes. Others wait for one such run at most;
several executors share the bound, for what runs in the loop does not run side by side.
"""

from __future__ import annotations

from bisect import bisect_right

from tailorbird.serving.batching.costs import Costs

BRIEF_SECONDS = 200e-6
"""About what handing a run to a thread and back takes on a busy machine."""

PROBE = 256
"""Of so many runs that have become too long, one is tried in the loop."""

_STEP = 1.05
_LOOK_EVERY = 16


class Brief:
    """Which runs of one bucket are brief.

    What is seen is kept as the median ratio of seen to predicted seconds, by frugal streaming (Ma, Muthukrishnan and
    Sandler, 2013): one step up for each run above it, one down for each below. A run that the system interrupted is
    one step, however long it was away.

    Args:
        costs: of the bucket; where the table knows nothing, nothing is brief.
        most: rows of a run.
        bound: seconds that a brief run usually takes at most.
    """

    __slots__ = ("_bound", "_costs", "_most", "_ratio", "_runs", "_tried", "rows")

    def __init__(self, costs: Costs, most: int, bound: float = BRIEF_SECONDS) -> None:
        self._costs = costs
        self._most = most
        self._bound = bound
        self._ratio = 1.0
        self._runs = 0
        self._tried = 0
        self.rows = 0
        """Runs with up to so many rows are brief; 0 where none is."""
        self._settle()

    def allows(self, rows: int) -> bool:
        """Whether a run of so many rows is for the loop: it is brief, or should be, and is tried once in a while."""
        if rows <= self.rows:
            return True
        if rows > self._most or self.rows == self._most or not 0 < self._costs.predicted(rows) <= self._bound:
            return False
        self._tried += 1
        return self._tried % PROBE == 0

    def observe(self, rows: int, seconds: float) -> None:
        """A run in the loop took so long."""
        predicted = self._costs.predicted(rows)
        if predicted > 0:
            self._ratio *= _STEP if seconds > predicted * self._ratio else 1 / _STEP
            self._runs += 1
            if not self._runs % _LOOK_EVERY:
                self._settle()

    def _settle(self) -> None:
        """Costs nowhere fall with rows, so that the border can be sought by halves."""
        if self._costs.predicted(1) > 0:
            rows = range(1, self._most + 1)
            self.rows = bisect_right(rows, self._bound, key=lambda count: self._costs.predicted(count) * self._ratio)
