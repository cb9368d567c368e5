"""One run: a repository, a server, clients of every kind, and what happens to the server meanwhile."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from tests.stress import chaos, models
from tests.stress.clients import Client, Http, Stream, Tally, Unary
from tests.stress.marks import Marks
from tests.stress.server import Server, serving


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to a server."""

    seconds: float
    isolation: str = "process"
    clients: tuple[int, int, int] = (4, 2, 2)
    """Of HTTP, unary gRPC, streams."""
    pause_s: float = 0.0
    kill_every_s: float = 0.0
    """Seconds between two kills; 0 for none."""
    swap_every_s: float = 0.0
    channels: tuple[str, ...] = ("production",)
    versions: int = 3
    timeouts: bool = True
    flags: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True):
    """What came of it."""

    tally: Tally
    done: Counter[str]
    log: list[str]
    exit_status: int

    def __str__(self) -> str:
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items())) or "nothing"
        versions = ", ".join(f"{name}: {count:,}" for name, count in sorted(self.tally.versions.items()))
        return f"{self.tally}\ndone to it: {done}\nanswers by version: {versions}\nexit status {self.exit_status}"


Beside = Callable[[Server, threading.Event], None]


def stressed(folder: Path, plan: Plan, beside: Sequence[Beside] = ()) -> Result:
    """Run a plan; what ``beside`` does runs in threads of its own until the end."""
    repository = models.repository(folder, plan.versions)
    done: Counter[str] = Counter()
    stop = threading.Event()
    flags = ("--isolation", plan.isolation, *plan.flags)
    tally = Tally()
    with serving(folder / "repository", *flags) as server:
        work: list[Callable[[], None]] = [lambda one=one: one(server, stop) for one in beside]
        if plan.kill_every_s:
            work.append(lambda: chaos.kill_instances(server, stop, plan.kill_every_s, done))
        if plan.swap_every_s:
            work.append(lambda: chaos.swap_versions(repository, stop, plan.swap_every_s, done, plan.channels))
        threads = [threading.Thread(target=one, daemon=True) for one in work]
        for thread in threads:
            thread.start()
        try:
            uvloop.run(_traffic(server, plan, tally))
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        status = server.stop()
        return Result(tally, done, server.log, status)


async def _traffic(server: Server, plan: Plan, tally: Tally) -> None:
    kinds: list[tuple[type[Client], str]] = [
        *[(Http, server.http)] * plan.clients[0],
        *[(Unary, server.grpc)] * plan.clients[1],
        *[(Stream, server.grpc)] * plan.clients[2],
    ]
    until = time.monotonic() + plan.seconds
    names = tuple(models.TURNS)
    clients = [
        kind(place, Marks(number, names, timeouts=plan.timeouts), tally, plan.pause_s)
        for number, (kind, place) in enumerate(kinds)
    ]
    await asyncio.gather(*(client.work(until) for client in clients))
