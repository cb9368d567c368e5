"""Tickets: what a request says about its own handling, apart from its tensors."""

from __future__ import annotations

import time

import msgspec

from tailorbird.serving.trail import Trail


class Ticket(msgspec.Struct, frozen=True):
    """When a request came, when its answer is worthless, and how urgent it is. Times are of ``time.monotonic``."""

    arrived: float
    deadline: float | None = None
    """After that moment the client no longer waits; None for no end."""
    priority: int = 0
    """1 is served first, larger numbers later; 0 is the model's default, behind every level that is named."""
    trail: Trail | None = None
    """Where its way is noted, if anybody traces it."""

    @classmethod
    def now(cls, timeout: float | None = None, priority: int = 0) -> Ticket:
        """A ticket of this moment.

        Args:
            timeout: seconds in which the answer must be there; None for no end.
            priority: as above.
        """
        arrived = time.monotonic()
        return cls(arrived, None if timeout is None else arrived + timeout, priority)

    @property
    def left(self) -> float | None:
        """Seconds until the deadline, negative after it; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()
