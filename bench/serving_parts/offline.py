"""An engine by itself, in a process of its own: what it gives with nothing around it."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from bench.servers.engines import Served
from tailorbird import api
from tailorbird.backends.isolate import Worker
from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.domain.config import Limits

ROOT = str(Path(__file__).resolve().parent.parent.parent)


class Asked(msgspec.Struct, frozen=True):
    """What to run: an engine, on which inputs, side by side how often, for how long."""

    engine: str
    inputs: tuple[str, ...]
    rows: int
    instances: int
    seconds: float


class Offline(msgspec.Struct, frozen=True):
    """Rows a second of all instances, and the median milliseconds of a run."""

    rate: float
    run_ms: float


class Alone:
    """An engine that waits to be measured; its process ends with the block.

    Args:
        served: which.
        folder: an existing one, for inputs.
        shapes: inputs' sets by name, each with its number of rows.
    """

    def __init__(self, served: Served, worker: Worker, folder: Path) -> None:
        self._served = served
        self._worker = worker
        self._folder = folder

    def run(self, rows: int, instances: int, seconds: float, sets: dict[str, dict[str, Any]] | None = None) -> Offline:
        """So many instances side by side, each on the same sets in rotation."""
        made = sets or {f"rows{rows}-{seed}": self._served.inputs(seed, rows) for seed in range(4)}
        files = tuple(self._written(name, tensors) for name, tensors in made.items())
        asked = Asked(str(self._served.bundle), files, rows, instances, seconds)
        return self._worker.call(f"{__name__}:measure", asked, Offline)

    def _written(self, name: str, tensors: dict[str, Any]) -> str:
        path = self._folder / f"{name}.npz"
        if not path.exists():
            save_set(path, tensors)
        return str(path)


@contextlib.contextmanager
def alone(served: Served, folder: Path) -> Iterator[Alone]:
    """The engine in a process of its own, opened on its first run and kept."""
    folder.mkdir(exist_ok=True)
    with Worker(Limits(seconds=300.0), search_path=(ROOT,)) as worker:
        yield Alone(served, worker, folder)


def measure(asked: Asked) -> Offline:
    """Inside that process."""
    sets = [load_set(Path(path)) for path in asked.inputs]
    sessions = _sessions(asked.engine)
    while len(sessions) < asked.instances:
        sessions.append(api.open(asked.engine))
    for session in sessions[: asked.instances]:
        session.run(sets[0])
    taken: list[float] = []
    end = time.perf_counter() + asked.seconds
    threads = [
        threading.Thread(target=_until, args=(end, session, sets, taken)) for session in sessions[: asked.instances]
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return Offline(len(taken) * asked.rows / seconds, sorted(taken)[len(taken) // 2] * 1e3)


@cache
def _sessions(engine: str) -> list[Any]:  # noqa: ARG001 - the cache's key
    return []


def _until(end: float, session: Any, sets: list[Any], taken: list[float]) -> None:
    for tensors in itertools.cycle(sets):
        before = time.perf_counter()
        session.run(tensors)
        after = time.perf_counter()
        taken.append(after - before)
        if after >= end:
            return
