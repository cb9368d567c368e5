"""The record: what changed in a server's models, for the log, the metrics and the status page."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum

import msgspec

from tailorbird.serving.statistics import Histogram

RECENT = 100
"""Changes that are remembered."""


class What(StrEnum):
    """What happened to a version."""

    LOADED = "loaded"
    FAILED = "failed"
    LIVE = "live"
    """It answers from now on what names no version."""
    CANARY = "canary"
    SHADOW = "shadow"
    STOPPED = "canary stopped"
    PUT_AWAY = "put away"
    EVICTED = "evicted"
    REFUSED = "refused"
    """There is no room for it."""
    BLIND = "repository cannot be read"
    SIGHTED = "repository can be read again"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. Its reason is for the log and for people who may see it, not for clients."""

    at: float
    """Unix time."""
    what: What
    model: str = ""
    version: int = 0
    seconds: float | None = None
    """How long it took, where that says something."""
    reason: str = ""


Told = Callable[[Change], None]


class Record:
    """Changes and their counts. Safe in any thread.

    Args:
        told: of every change; what it raises is ignored.
    """

    def __init__(self, told: Told | None = None) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._recent: deque[Change] = deque(maxlen=RECENT)
        self.counts: Counter[tuple[str, What]] = Counter()
        """By model."""
        self.load_seconds = Histogram()
        """Of loads that succeeded: verified, started, warm, checked."""

    @property
    def recent(self) -> tuple[Change, ...]:
        """The latest changes, the newest first."""
        with self._lock:
            return tuple(reversed(self._recent))

    def note(self, what: What, model: str = "", version: int = 0, *, seconds: float | None = None,
             reason: str = "") -> None:  # fmt: skip
        """Write a change down, and tell it."""
        change = Change(at=time.time(), what=what, model=model, version=version, seconds=seconds, reason=reason)
        with self._lock:
            self._recent.append(change)
            self.counts[model, what] += 1
            if what is What.LOADED and seconds is not None:
                self.load_seconds.add(seconds)
        if self._told is not None:
            with contextlib.suppress(Exception):  # whoever listens must not end what is recorded
                self._told(change)
