"""The door: what is refused at once, because there is no room, or because its answer would come too late."""

from __future__ import annotations

import math
import sys

import msgspec

from tailorbird.domain.errors import InputError, Overloaded
from tailorbird.serving.batching.executors import Slots
from tailorbird.serving.batching.forms import Form
from tailorbird.serving.batching.queueing import LAST, Queue
from tailorbird.serving.batching.requests import Part, Terms
from tailorbird.serving.batching.work import Work
from tailorbird.serving.instance import OUTSTANDING
from tailorbird.serving.ticket import Ticket

PROBE = 16
"""Of so many requests that an idle engine seems too slow for, one is tried all the same: were the costs wrong and
nothing run, nothing would correct them."""

_FREE = Terms(LAST)


class BatchOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What can be set about the batching of one model. Times are in seconds."""

    max_queue_delay: float | None = None
    """The longest wait for more rows beside an idle executor; None means half a run of one row. Where the latency
    table does not say that waiting pays, nothing waits."""
    default_timeout: float | None = None
    """For requests that name no deadline; None means no end."""
    preserve_ordering: bool = False
    """Answers leave in the order in which requests came. All buckets and priorities then make one line."""
    most_requests: int = OUTSTANDING
    """Requests accepted and not yet answered."""
    most_rows: int | None = None
    """Their rows, and so those of any one request; None means as many as ``most_requests`` full batches have."""

    def row_limit(self, most: int) -> int:
        """Rows accepted and not yet answered, where a batch has ``most``."""
        return self.most_requests * most if self.most_rows is None else self.most_rows


class Admission:
    """Who may come in.

    Args:
        options: the limits.
        row_limit: rows accepted and not yet answered.
        work: how long things take.
        slots: the executors.
        queue: what waits for them.
    """

    def __init__(self, options: BatchOptions, row_limit: int, work: Work, slots: Slots, queue: Queue[Part]) -> None:
        self._most = options.most_requests
        self._row_limit = row_limit
        self._timeout = options.default_timeout
        self._one_level = options.preserve_ordering
        self._work = work
        self._slots = slots
        self._queue = queue
        self._unlikely = 0
        self.requests = 0
        """Accepted and not yet answered."""
        self.rows = 0
        """Their rows."""

    def check(self, form: Form, ticket: Ticket | None, now: float) -> Terms:
        """The terms on which a request is accepted.

        Raises:
            InputError: its priority is negative.
            Overloaded: there is no room, its deadline has passed, or cannot be met.
        """
        self._check_room(form)
        if ticket is None and self._timeout is None:
            return _FREE
        ticket = ticket or Ticket(now)
        deadline = ticket.deadline
        if deadline is None and self._timeout is not None:
            deadline = ticket.arrived + self._timeout
        rank = LAST if self._one_level else _rank(ticket.priority)
        probe = deadline is not None and not self._in_time(form, rank, deadline - now)
        return Terms(rank, deadline, probe, ticket.trail)

    def _check_room(self, form: Form) -> None:
        if self.requests >= self._most:
            raise _full("requests", self.requests, self._most)
        if self.rows and self.rows + form.rows > self._row_limit:
            raise _full("rows", self.rows + form.rows, self._row_limit + 1)

    def _in_time(self, form: Form, rank: int, left: float) -> bool:
        """Whether a deadline can be met, with so many seconds left; False where trying is to tell.

        For an idle executor its usual run must be short enough. Behind others, what is rarely exceeded must:
        who is let in there and comes too late has taken the time of one who would not have.
        """
        if left <= 0:
            raise too_late("the deadline has passed")
        if not self._work.known:
            return True
        idle = not len(self._queue) and self._slots.free() is not None
        needed = self._work.alone(form) if idle else self._work.behind(form, rank, self._queue)
        if needed <= left:
            return True
        self._unlikely += idle
        if idle and self._unlikely % PROBE == 0:
            return False
        raise too_late("the deadline cannot be met", needed - left, got=f"{left * 1e3:.3g} ms",
                       expected=f"about {needed * 1e3:.3g} ms")  # fmt: skip


def too_late(what: str, seconds: float = 0.0, *, got: object = None, expected: object = None) -> Overloaded:
    """The refusal of a request whose answer would come ``seconds`` too late, or does."""
    error = Overloaded(what, got=got, expected=expected, hint="allow more time, or send fewer requests at once")
    error.retry_after_s = max(1, math.ceil(seconds))
    return error


def _full(what: str, got: int, limit: int) -> Overloaded:
    return Overloaded(f"too many {what} are waiting", got=got, expected=f"fewer than {limit}",
                      hint="send fewer at once, or later")  # fmt: skip


def _rank(priority: int) -> int:
    """The place of a level: 1 is the first, and 0 comes after all that are named."""
    if priority < 0:
        raise InputError("the priority is negative", got=priority, expected="0, or 1 for the first level, 2, ...")
    return min(priority, sys.maxsize - 1) or LAST
