"""Arrivals: when each request of an open loop is sent, whatever became of those before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from tailorbird.domain.errors import UsageError

MAX_TRACE_BYTES = 256 << 20


class Arrival(msgspec.Struct, frozen=True):
    """One request: seconds after the start, and how many rows it carries."""

    at: float
    rows: int = 1


def poisson(rate: float, seconds: float, seed: int = 0, rows: int = 1) -> list[Arrival]:
    """Independent clients, as in MLPerf's Server scenario: gaps are exponential with mean ``1 / rate``.

    Args:
        rate: requests a second.
        seconds: how long.
        seed: equal seeds give equal arrivals.
        rows: of each request.
    """
    _check(rate, seconds)
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, size=int(rate * seconds * 1.5 + 100))
    times = np.cumsum(gaps)
    while times[-1] < seconds:  # improbable
        times = np.append(times, times[-1] + np.cumsum(random.exponential(1 / rate, size=1000)))
    return [Arrival(float(at), rows) for at in times[times < seconds]]


def steady(rate: float, seconds: float, rows: int = 1) -> list[Arrival]:
    """One request every ``1 / rate`` seconds."""
    _check(rate, seconds)
    return [Arrival(number / rate, rows) for number in range(int(rate * seconds))]


def recorded(path: Path) -> list[Arrival]:
    """The arrivals of a trace: JSON lines with ``at`` (seconds) and ``rows``, as ``serve --record`` writes them.

    Raises:
        UsageError: the file cannot be read, is too large, or is no trace.
    """
    try:
        if path.stat().st_size > MAX_TRACE_BYTES:
            raise UsageError("the trace is too large", got=f"{path.stat().st_size} bytes",
                             expected=f"at most {MAX_TRACE_BYTES} bytes")  # fmt: skip
        found = [msgspec.json.decode(line, type=Arrival) for line in path.read_bytes().splitlines() if line]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the trace {path}", got=error, expected='lines like {"at": 0.25, "rows": 1}',
                         hint="record one: tailorbird serve --record DIR") from None  # fmt: skip
    if not found:
        raise UsageError(f"the trace {path} is empty")
    first = min(one.at for one in found)
    return sorted((Arrival(one.at - first, max(1, one.rows)) for one in found), key=lambda one: one.at)


def endless(rows: int = 1) -> Iterator[Arrival]:
    """Requests for a closed loop: each is sent when a connection is free."""
    return itertools.repeat(Arrival(0.0, rows))


def _check(rate: float, seconds: float) -> None:
    if not rate > 0 or not seconds > 0:
        raise UsageError("an open loop needs a rate and a duration", got=f"{rate:g} requests/s for {seconds:g} s",
                         expected="both above 0")  # fmt: skip
