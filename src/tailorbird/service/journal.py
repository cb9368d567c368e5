"""The server's own log: one JSON object a line, on stderr."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import msgspec


def record(event: str, **facts: str | float | None) -> None:
    """Write one line; a closed or full stderr is no reason to fail a request."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = msgspec.json.encode({"time": now, "event": event, **facts}).decode()
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
