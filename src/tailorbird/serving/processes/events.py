"""What happens to the process of an instance, told to whoever watches: logs, metrics."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec


class Happening(StrEnum):
    """What can happen to an instance's process."""

    STARTED = "started"
    READY = "ready"
    CRASHED = "crashed"
    """It ended without being told to, or was killed for what it did."""
    RESTARTING = "restarting"
    GAVE_UP = "gave up"
    ENDED = "ended"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened, for logs and metrics."""

    instance: str
    what: Happening
    pid: int = 0
    seconds: float = 0.0
    """READY: from the start to here. CRASHED, ENDED: it lived so long. RESTARTING: until the next start."""
    cause: str = ""
    """Of a crash, or of giving up. For the log, not for clients."""
    words: str = ""
    """The last of what a crashed process printed; nothing of it is trusted or for clients."""


Observer = Callable[[Event], None]
"""Called from the instance's own thread; must be quick."""
