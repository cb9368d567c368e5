"""Arrivals: when each request of an open loop is sent, whatever became of those before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from tailorbird.domain.errors import UsageError
from tailorbird.domain.trace import TraceRequest, read_trace

MAX_ARRIVALS = 5_000_000


class Arrival(msgspec.Struct, frozen=True):
    """One request: seconds after the start, how many rows it carries, and in which shapes."""

    at: float
    rows: int = 1
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Of its inputs, where a trace says them."""

    @property
    def look(self) -> object:
        """Requests of equal looks can be sent for one another."""
        return (self.rows, self.shapes) if self.shapes else self.rows


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


def recorded(path: Path, model: str = "") -> list[Arrival]:
    """The arrivals of a trace, the first at 0, in order.

    Args:
        path: what ``serve --record`` wrote, a file or its folder; or JSON lines with ``at`` (seconds) and ``rows``.
        model: only requests for it, where the trace says for whom they were; empty for all.

    Raises:
        UsageError: the trace cannot be read, has too many requests or none for the model, or is no trace.
    """
    found = [(one.at, one.form) for one in itertools.islice(_for(model, path), MAX_ARRIVALS + 1)]
    if not found:
        raise UsageError(
            f"the trace {path} is empty" if not model else f"the trace {path} has no request for '{model}'"
        )
    if len(found) > MAX_ARRIVALS:
        raise UsageError("the trace is too long", expected=f"at most {MAX_ARRIVALS} requests",
                         hint="name one of its files")  # fmt: skip
    found.sort(key=lambda one: one[0])
    shapes = {id(form): tuple(form.inputs.items()) for _, form in found}
    return [Arrival((at - found[0][0]) / 1e9, max(1, form.rows), shapes[id(form)]) for at, form in found]


def _for(model: str, path: Path) -> Iterator[TraceRequest]:
    return (one for one in read_trace(path) if not model or one.form.model in ("", model))


def endless(rows: int = 1) -> Iterator[Arrival]:
    """Requests for a closed loop: each is sent when a connection is free."""
    return itertools.repeat(Arrival(0.0, rows))


def _check(rate: float, seconds: float) -> None:
    if not rate > 0 or not seconds > 0:
        raise UsageError("an open loop needs a rate and a duration", got=f"{rate:g} requests/s for {seconds:g} s",
                         expected="both above 0")  # fmt: skip
