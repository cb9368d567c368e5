"""The server's own log: one JSON object a line, on stderr.

Nobody waits for whoever reads it. A pipe that is not read would block the event loop, and with it every request: so
lines are written only while there is room, and wait here, up to a number of them, while there is none.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
from collections import deque
from datetime import UTC, datetime

import msgspec

WAITING = 10_000
"""Lines that wait for room; beyond it the oldest are dropped, which the next line that is written says."""

_PIECE = 4096
"""Bytes that a pipe takes at once or not at all (``PIPE_BUF``): where there is room, there is room for so many."""


def record(event: str, **facts: str | float | None) -> None:
    """Write one line; a closed, full or unread stderr is no reason to fail a request, or to hold one up."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    _journal.add(msgspec.json.encode({"time": now, "event": event, **facts}) + b"\n")


class Journal:
    """Lines on their way to stderr; from any thread.

    Args:
        most: lines that wait.
    """

    def __init__(self, most: int = WAITING) -> None:
        self._most = most
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._lock = threading.Lock()

    def add(self, line: bytes) -> None:
        """One more line, behind those that wait."""
        with self._lock:
            self._waiting.append(line)
            if len(self._waiting) > self._most:
                self._waiting.popleft()
                self._dropped += 1
            self._write()

    def flush(self) -> None:
        """Write what there is room for."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        try:
            sys.stderr.flush()  # what others said before
            descriptor = sys.stderr.fileno()
        except (io.UnsupportedOperation, AttributeError):  # no file, but what a program or a test has put there
            self._write_text()
        except (OSError, ValueError):  # it is closed, or its disk is full
            self._waiting.clear()
        else:
            self._write_to(descriptor)

    def _write_to(self, descriptor: int) -> None:
        while self._waiting and _has_room(descriptor):
            if self._dropped:
                self._waiting.appendleft(b'{"event":"log lines were dropped","lines":%d}\n' % self._dropped)
                self._dropped = 0
            line = self._waiting.popleft()
            try:
                written = os.write(descriptor, line[:_PIECE])
            except OSError:  # this one is lost; the next may find the disk less full
                continue
            if written < len(line):
                self._waiting.appendleft(line[written:])

    def _write_text(self) -> None:
        while self._waiting:
            line = self._waiting.popleft().decode()
            try:
                sys.stderr.write(line)
                sys.stderr.flush()
            except (OSError, ValueError, AttributeError):
                continue


def _has_room(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


_journal = Journal()
atexit.register(_journal.flush)
