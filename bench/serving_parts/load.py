"""Load: closed loops by the C generator, open ones by ``tailorbird bench``'s own parts; CPU time of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from bench import rawload
from bench.servers.process import Server
from tailorbird.load.arrivals import Arrival, poisson
from tailorbird.load.connection import Pool
from tailorbird.load.drive import closed_loop, open_loop
from tailorbird.load.tally import Tally

CONNECTIONS = 256
"""Of an open loop, at most; beyond them requests wait at the client, and their latency counts."""

WARM_SECONDS = 0.5


class Closed(msgspec.Struct, frozen=True):
    """What a closed loop came to."""

    rate: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """User and system time of the server's processes for each request."""


class Open(msgspec.Struct, frozen=True):
    """What an open loop came to. Times are in milliseconds and count from when a request was meant to be sent."""

    seconds: float
    """While requests were sent."""
    elapsed: float
    """Until the last answer."""
    sent: int
    answered: tuple[float, ...]
    refused: tuple[float, ...]
    failed: int
    late_ms: float
    """99th percentile of how late the generator itself was."""
    cpu_ms: float
    """As for :class:`Closed`, for each request that was sent."""

    def within(self, slo_ms: float) -> float:
        """Goodput: answers a second that came within the SLO, over the time in which they can have come."""
        return sum(one <= slo_ms for one in self.answered) / (self.seconds + slo_ms / 1e3)


def closed(server: Server, request: bytes, connections: int, seconds: float) -> Closed:
    """``connections`` clients, each of which sends its next request when the last is answered.

    Raises:
        RuntimeError: an answer was not 200.
    """
    before = server.cpu_seconds()
    rates = rawload.run("127.0.0.1", server.port, request, connections, seconds)
    cpu = server.cpu_seconds() - before
    return Closed(rates.rate, rates.p50 * 1e3, rates.p99 * 1e3, cpu / rates.requests * 1e3)


def rotating(server: Server, requests: Sequence[bytes], connections: int, seconds: float) -> Closed:
    """The same with several requests in rotation, from Python: for models that take milliseconds.

    Raises:
        RuntimeError: an answer was not 200.
    """
    tally, before, begun = _Collecting("closed"), server.cpu_seconds(), time.monotonic()
    asyncio.run(_closed(server, requests, connections, seconds, tally))
    elapsed = time.monotonic() - begun  # the last answers come after the end of the loop
    cpu, found = server.cpu_seconds() - before, tally.summary(elapsed)
    if found.failed or not found.answered:
        raise RuntimeError(f"{server.name}: {found.faults or 'nothing was answered'}")
    return Closed(found.rate, percentile(tally.answers, 50), percentile(tally.answers, 99), cpu / found.answered * 1e3)


def warm(server: Server, request: bytes, connections: int = 2) -> None:
    """A little load that nobody counts."""
    rawload.run("127.0.0.1", server.port, request, connections, WARM_SECONDS)


def opened(server: Server, requests: Sequence[bytes], rate: float, seconds: float, seed: int) -> Open:
    """Poisson arrivals, sent whatever became of those before.

    Args:
        server: who is asked.
        requests: sent in rotation.
        rate: requests a second.
        seconds: how long.
        seed: equal seeds give equal arrivals.
    """
    arrivals, tally = poisson(rate, seconds, seed), _Collecting("server")
    before, begun = server.cpu_seconds(), time.monotonic()
    asyncio.run(_open(server, requests, arrivals, tally))
    cpu, elapsed = server.cpu_seconds() - before, time.monotonic() - begun
    found = tally.summary(elapsed)
    return Open(
        seconds=seconds,
        elapsed=elapsed,
        sent=found.sent,
        answered=tuple(tally.answers),
        refused=tuple(tally.refusals),
        failed=found.failed,
        late_ms=found.late_ms,
        cpu_ms=cpu / max(1, found.sent) * 1e3,
    )


def percentile(values: Sequence[float], at: float) -> float:
    """A percentile; infinite of nothing."""
    return float(np.percentile(values, at)) if values else float("inf")


async def _closed(server: Server, requests: Sequence[bytes], connections: int, seconds: float, tally: Tally) -> None:
    pool = Pool(server.url, CONNECTIONS)
    try:
        await closed_loop(pool, requests, 1, connections, seconds, tally)
    finally:
        pool.close()


async def _open(server: Server, requests: Sequence[bytes], arrivals: list[Arrival], tally: Tally) -> None:
    pool = Pool(server.url, CONNECTIONS)
    try:
        await open_loop(pool, {1: requests}, arrivals, tally)
    finally:
        pool.close()


class _Collecting(Tally):
    """Keeps every latency: rounds are put together before a 99th percentile is taken."""

    def __init__(self, scenario: str) -> None:
        super().__init__(scenario)
        self.answers: list[float] = []
        self.refusals: list[float] = []

    def answered(self, seconds: float, rows: int) -> None:
        super().answered(seconds, rows)
        self.answers.append(seconds * 1e3)

    def refused(self, seconds: float) -> None:
        super().refused(seconds)
        self.refusals.append(seconds * 1e3)


def settle(seconds: float = 0.2) -> None:
    """Time for the server before to fall idle."""
    time.sleep(seconds)
