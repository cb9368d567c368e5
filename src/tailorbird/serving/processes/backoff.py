"""Back-off: how long to wait before something that ended is started again, and when not to."""

from __future__ import annotations

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 30.0
HEALTHY_S = 60.0
"""A process that lived so long counts as well again."""


class Backoff:
    """How long to wait before the next start, and when to stop trying.

    Args:
        starts: starts that may fail in a row.
    """

    def __init__(self, starts: int) -> None:
        self._starts = starts
        self._ends = 0
        self._failed = 0

    def after(self, lived_s: float | None) -> float | None:
        """Seconds to wait after a process ended; None to give up.

        Args:
            lived_s: seconds it was ready; None when it never was.
        """
        self._failed = self._failed + 1 if lived_s is None else 0
        if self._failed >= self._starts:
            return None
        self._ends = 1 if lived_s is not None and lived_s >= HEALTHY_S else self._ends + 1
        return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._ends - 1, 60))
