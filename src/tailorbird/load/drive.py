"""Driving: requests sent in an open loop (arrivals decide) or a closed one (answers decide)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tailorbird.domain.errors import TailorbirdError
from tailorbird.load.arrivals import Arrival
from tailorbird.load.client import ANSWER_SECONDS, Answer, Asker
from tailorbird.load.tally import Tally

ANSWERED = (200, "OK")
REFUSALS = (429, 503, "UNAVAILABLE", "RESOURCE_EXHAUSTED")
"""HTTP's and gRPC's."""


async def open_loop(
    client: Asker,
    requests: Mapping[Any, Sequence[bytes]],
    arrivals: Sequence[Arrival],
    tally: Tally,
    drain: float = ANSWER_SECONDS,
) -> None:
    """Send each request at its time, whether or not those before it were answered; ends with the last answer.

    Args:
        client: speaks to the server.
        requests: whole requests by the look of an arrival, sent in rotation.
        arrivals: in order of time.
        tally: receives what becomes of each.
        drain: seconds after the last request for answers that are still out; what is out then has failed.
    """
    loop = asyncio.get_running_loop()
    turns = {look: itertools.cycle(made) for look, made in requests.items()}
    start = loop.time()
    tasks = set()
    for arrival in arrivals:
        meant = start + arrival.at
        if (ahead := meant - loop.time()) > 0:
            await asyncio.sleep(ahead)
        task = asyncio.ensure_future(_one(client, next(turns[arrival.look]), arrival.rows, meant, tally))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await _drained(tasks, drain, tally)


async def _drained(tasks: set[asyncio.Task[None]], seconds: float, tally: Tally) -> None:
    if not tasks:
        return
    done, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
        tally.failed(f"no answer within {seconds:g} s after the last request")
    await asyncio.gather(*late, return_exceptions=True)
    await asyncio.gather(*done)


async def closed_loop(
    client: Asker, requests: Sequence[bytes], rows: int, workers: int, ends: float, tally: Tally
) -> None:
    """``workers`` clients, each sending its next request when its last was answered, for ``ends`` seconds."""
    until = asyncio.get_running_loop().time() + ends
    turn = itertools.cycle(requests)
    await asyncio.gather(*(_client(client, turn, rows, until, tally) for _ in range(workers)))


async def _client(client: Asker, turn: Iterator[bytes], rows: int, until: float, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    while (now := loop.time()) < until:
        await _one(client, next(turn), rows, now, tally)


async def _one(client: Asker, request: bytes, rows: int, meant: float, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    tally.sent(max(0.0, loop.time() - meant))
    try:
        answer = await client.ask(request)
    except (ConnectionError, TimeoutError, TailorbirdError) as error:
        tally.failed(str(error).splitlines()[0])
        return
    _count(answer, rows, loop.time() - meant, tally)


def _count(answer: Answer, rows: int, seconds: float, tally: Tally) -> None:
    if answer.status in ANSWERED:
        tally.answered(seconds, rows)
    elif answer.status in REFUSALS:
        tally.refused(seconds)
    else:
        tally.failed(f"status {answer.status}: {answer.body[:120].decode('utf-8', 'replace')}")


def timed(start: float) -> float:
    """Seconds since ``start`` of ``time.monotonic``, never 0."""
    return max(time.monotonic() - start, 1e-9)
