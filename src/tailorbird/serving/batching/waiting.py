"""When it pays to wait for more rows although an executor is idle."""

from __future__ import annotations

from collections.abc import Callable

GRAIN = 1e-3
"""Seconds. Event loops wait in whole milliseconds (both epoll's and libuv's timers do): less cannot be waited."""

GAIN = 1 / 8
"""Weight of the newest arrival in the average gap and the average rows of a request."""


class Arrivals:
    """How often requests of one bucket come, and with how many rows.

    Requests are what is awaited, not rows: a lone client that sends eight rows and waits for its answer
    makes many rows a second, and nobody else would come.

    Args:
        longest: seconds; longer gaps count as this one, so that a quiet hour is forgotten within a few
            requests.
    """

    __slots__ = ("_gap", "_last", "_longest", "_rows")

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._gap = longest
        self._last = 0.0
        self._rows = 1.0

    def note(self, now: float, rows: int) -> None:
        """A request with that many rows has come."""
        gap = min(now - self._last, self._longest)
        self._gap += GAIN * (gap - self._gap)
        self._rows += GAIN * (rows - self._rows)
        self._last = now

    @property
    def gap(self) -> float:
        """Average seconds between two requests, more than 0."""
        return max(self._gap, 1e-9)

    @property
    def rows(self) -> float:
        """Average rows of a request."""
        return self._rows


def worthwhile(seconds: Callable[[int], float], rows: int, room: int, arrivals: Arrivals, bound: float) -> float:
    r"""Seconds to wait before starting ``rows`` rows on an idle executor, or 0 when waiting does not pay.

    Let T(n) be the seconds of a run with n rows, r the rows that wait, and k = lambda * delta those that
    come within delta seconds, on average half of it before its end. What counts is the time that all r + k
    rows together spend here.

    * Started now, the r rows take r T(r). The k rows find the executor busy for another T(r) - delta/2 on
      average and then take T(k): k (T(r) - delta/2 + T(k)).
    * After waiting, the r rows have taken r (delta + T(r + k)), and the k rows k (delta/2 + T(r + k)).

    The difference, first minus second, is what waiting saves:

        k T(k) - (r + k) (delta + T(r + k) - T(r))

    Waiting pays when that is positive, and the delta that saves most is taken. With T(n) = a + b n it is
    positive when a > (r + k)/lambda + r b: a run's fixed cost must exceed what the waiting costs, so waiting
    ends by itself as r grows. It holds for delta <= T(r), as the executor is idle again after that.

    Args:
        seconds: T.
        rows: r.
        room: the most that k may be.
        arrivals: lambda, as requests a second times rows of a request.
        bound: the longest wait, in seconds.
    """
    now, best, pause = seconds(rows), 0.0, 0.0
    bound = min(bound, now)
    requests = max(1.0, GRAIN / arrivals.gap)
    while (delta := max(requests * arrivals.gap, GRAIN)) <= bound:
        more = min(room, max(1, round(requests * arrivals.rows)))
        saved = more * seconds(more) - (rows + more) * (delta + seconds(rows + more) - now)
        if saved > best:
            best, pause = saved, delta
        if more == room:
            break
        requests *= 2
    return pause
