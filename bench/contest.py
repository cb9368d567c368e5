"""The contest: every contestant in a process of its own, heard on what it answers, then in turn A B C A B C ..."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from bench.contestants import Answered, Answering, Hearing, Times, Turn
from tailorbird.backends.isolate import Worker
from tailorbird.domain.budget import GateReport
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import TailorbirdError

TURN_SECONDS = 0.4
STEP_SECONDS = 300.0
_CONTESTANTS = "bench.contestants"


@dataclass(frozen=True)
class Results:
    """What came out, by contestant; who is in none of the first two did not run."""

    medians: dict[str, list[float]]
    """Median milliseconds of every turn."""
    reports: dict[str, GateReport]
    failures: dict[str, str]


def answers(model: Path, inputs: Path, folder: Path, threads: int) -> Path:
    """FP32's answers to all sets of a folder, in a new folder under the same names."""
    folder.mkdir()
    with _worker() as worker:
        args = Answering(str(model), str(inputs), str(folder), threads)
        worker.call(f"{_CONTESTANTS}:answer", args, Answered)
    return folder


def held(contestants: Mapping[str, Turn], references: Path, rounds: int) -> Results:
    """Reports and times of all contestants. One that a runtime refuses, or that dies, is left out, and it is said."""
    results = Results({}, {}, {})
    with _workers(contestants) as workers:
        for name, turn in contestants.items():
            with _noting(name, results):
                hearing = Hearing(turn, str(references))
                results.reports[name] = workers[name].call(f"{_CONTESTANTS}:judge", hearing, GateReport)
        _race({name: contestants[name] for name in results.reports}, workers, rounds, results)
    return results


def in_turn(contestants: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Median milliseconds of every contestant's every turn, without a hearing. One that does not run is left out."""
    results = Results({}, {}, {})
    with _workers(contestants) as workers:
        _race(contestants, workers, rounds, results)
    return results.medians


def words(error: TailorbirdError) -> str:
    """An error in one line; its hint is for whoever called, which is this benchmark."""
    return " ".join(error.message.partition("\nHint:")[0].split())[:300]


def _race(contestants: Mapping[str, Turn], workers: Mapping[str, Worker], rounds: int, results: Results) -> None:
    paces: dict[str, float] = {}
    for name, turn in contestants.items():
        with _noting(name, results):
            paces[name] = _turn(workers[name], turn, 3)
    results.medians.update({name: [] for name in paces})
    for _ in range(rounds):
        for name, pace in paces.items():
            runs = max(3, min(500, int(TURN_SECONDS * 1e3 / pace)))
            results.medians[name].append(_turn(workers[name], contestants[name], runs))


@contextlib.contextmanager
def _noting(name: str, results: Results) -> Iterator[None]:
    try:
        yield
    except TailorbirdError as error:
        results.failures[name] = words(error)
        print(f"{name} left out: {results.failures[name]}", file=sys.stderr)


def _turn(worker: Worker, turn: Turn, runs: int) -> float:
    asked = msgspec.structs.replace(turn, runs=runs)
    return float(np.median(worker.call(f"{_CONTESTANTS}:take_turn", asked, Times).milliseconds))


def _worker() -> Worker:
    return Worker(Limits(seconds=STEP_SECONDS), search_path=(str(Path(__file__).resolve().parent.parent),))


@contextlib.contextmanager
def _workers(names: Mapping[str, Turn]) -> Iterator[dict[str, Worker]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(_worker()) for name in names}
