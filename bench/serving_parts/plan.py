"""What the contests share: how long and how often, who takes part, and a sheet to note figures on."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.servers import ours
from bench.servers.engines import Served
from bench.servers.process import Server
from bench.servers.rivals import RIVALS, Rival, Spec
from bench.servers.triton import PYTRITON
from bench.serving_parts.results import Contest, Entry, Figure, Goal
from tailorbird.backends.host import cpu_facts
from tailorbird.domain.errors import TailorbirdError

PACKAGES = ("tailorbird", "uvicorn", "uvloop", "numpy", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Plan:
    """How a run is made."""

    rounds: int = 5
    scale: float = 1.0
    """Of all times: below 1 for a smoke run."""
    rivals: tuple[str, ...] = tuple(one.name for one in RIVALS)
    folder: Path = Path()
    """A private one, for logs and inputs."""

    def seconds(self, whole: float) -> float:
        """Of one turn."""
        return max(0.3, whole * self.scale)

    def taking_part(self, but: tuple[str, ...] = ()) -> list[Rival]:
        """The rivals of a contest."""
        return [one for one in RIVALS if one.name in self.rivals and one.name not in but]


@dataclass
class Sheet:
    """Figures as they come in, and remarks."""

    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, **values: float) -> None:
        """Add one value of each of these figures."""
        row = self.figures.setdefault(name, {})
        for figure, value in values.items():
            if math.isfinite(value):  # a percentile of nothing is none, and JSON has no infinity
                row.setdefault(figure, []).append(value)

    def entries(self) -> tuple[Entry, ...]:
        """Everybody's, in the order in which they were first seen; last those of whom there is a remark only."""
        names = dict.fromkeys([*self.figures, *self.notes])
        return tuple(
            Entry(name, {key: Figure(tuple(values)) for key, values in self.figures.get(name, {}).items()},
                  self.notes.get(name, ""))
            for name in names
        )  # fmt: skip

    def figure(self, name: str, figure: str) -> Figure | None:
        """One contestant's figure, where there is one."""
        values = self.figures.get(name, {}).get(figure)
        return Figure(tuple(values)) if values else None


@dataclass(frozen=True)
class Contestant:
    """A running server and how it is asked."""

    name: str
    server: Server
    requests: tuple[bytes, ...]
    restless: bool = False
    """See :class:`bench.servers.rivals.Rival`."""


Requests = Callable[[Rival], tuple[bytes, ...]]


@contextmanager
def started(
    plan: Plan, served: Served, own: tuple[bytes, ...], spec: Spec, requests: Requests, but: tuple[str, ...] = ()
) -> Iterator[tuple[list[Contestant], Sheet]]:
    """Our server in both isolations and the rivals, all up at once; a rival that does not start is noted."""
    sheet = Sheet()
    with ExitStack() as stack:
        found = [
            _entered(stack, plan, f"tailorbird {one}", partial(ours.served, served.bundle, one), own)
            for one in ours.ISOLATIONS
        ]
        for rival in plan.taking_part(but):
            try:
                entered = _entered(stack, plan, rival.name, partial(rival.start, spec), requests(rival))
            except TailorbirdError as error:
                said(f"{rival.name} left out: {error.message}")
                sheet.notes[rival.name] = " ".join(error.message.split())[:200]
                continue
            if rival.restless:
                entered.server.pause()
            found.append(replace(entered, restless=rival.restless))
        yield found, sheet


def _entered(
    stack: ExitStack, plan: Plan, name: str, start: Callable[[Path], AbstractContextManager[Server]],
    requests: tuple[bytes, ...],
) -> Contestant:  # fmt: skip
    folder = fresh(plan.folder, name)
    return Contestant(name, stack.enter_context(start(folder)), requests)


def fresh(folder: Path, name: str) -> Path:
    """A new folder in a folder."""
    number = len(list(folder.glob("*")))
    found = folder / f"{number:03}-{name.replace(' ', '-')}"
    found.mkdir(parents=True)
    return found


@contextmanager
def turn(one: Contestant, sheet: Sheet) -> Iterator[None]:
    """One contestant's turn: whoever is restless runs for as long, and what fails is noted."""
    with attempt(one.name, sheet):
        if one.restless:
            one.server.resume()
        try:
            yield
        finally:
            if one.restless:
                one.server.pause()


@contextmanager
def attempt(name: str, sheet: Sheet) -> Iterator[None]:
    """A turn that fails is noted and said, and the contest goes on."""
    try:
        yield
    except (RuntimeError, TailorbirdError, OSError) as error:
        words = " ".join(str(error).split())[:200]
        said(f"{name}: {words}")
        sheet.notes[name] = words


def in_turn(rounds: int, names: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """A B C, B C A, C A B, ...: whoever comes first in a round is another one each time."""
    for number in range(rounds):
        first = number % len(names)
        for one in (*names[first:], *names[:first]):
            yield number, one


@dataclass(frozen=True)
class Clock:
    """When a contest began, and how busy the machine was: its load average of the minute before."""

    begun: float = field(default_factory=time.monotonic)
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def contest(
    name: str, plan: Plan, clock: Clock, facts: dict[str, str], tables: dict[str, tuple[Entry, ...]],
    goals: Sequence[Goal],
) -> Contest:  # fmt: skip
    """A contest's record."""
    return Contest(
        name=name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock.begun, 1),
        device={**cpu_facts(), "cores": str(os.cpu_count())},
        versions=versions(plan),
        rounds=plan.rounds,
        facts=facts,
        tables=tables,
        goals=tuple(goals),
        load=round(clock.load, 2),
    )


def versions(plan: Plan) -> dict[str, str]:
    """Of everything that took part."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    for rival in plan.taking_part():
        pins = rival.environment.packages if rival.environment else (PYTRITON,)
        found |= {name: version for name, _, version in (one.partition("==") for one in pins)}
    return found


def said(text: str) -> None:
    """Progress, on stderr: stdout is for tables."""
    print(text, file=sys.stderr, flush=True)
