"""Profiles: where the chosen engine and the runner-up spend their time, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tailorbird.backends.isolate import Worker
from tailorbird.builder.search import standings
from tailorbird.builder.search.course import STEPS, Course
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.layers import LayerBook, LayerTable
from tailorbird.domain.outcome import Outcome

SECONDS = 20.0
"""What one engine's profile may take, opening it twice included. It explains a build and decides nothing."""


def profiled(course: Course, podium: Sequence[Outcome]) -> LayerBook:
    """The layers of these engines, at the place that decided; without those that could not be profiled.

    Args:
        course: what they raced over; their engines are still in its folder.
        podium: the chosen one, and the runner-up if there is one.
    """
    tables = (_table(course, outcome) for outcome in podium)
    return LayerBook(tuple(table for table in tables if table is not None and table.layers))


def _table(course: Course, outcome: Outcome) -> LayerTable | None:
    """A failure is a line of the log: the engine is right and measured, whatever its profiler does."""
    name, begun = outcome.candidate.name, course.log.seconds
    row = standings.deciding(outcome, course.goal)
    args = msgspec.structs.replace(course.args(outcome.candidate, row.edge), model=str(course.lowering.normalised))
    try:
        with _worker(course) as worker:
            table = worker.call(f"{STEPS}:profile_engine", args, LayerTable)
    except TailorbirdError as error:
        course.log.write("not profiled", candidate=name, reason=error.message)
        return None
    spent = round(course.log.seconds - begun, 3)
    course.log.write("profiled", candidate=name, layers=len(table.layers), ms=table.profiled, seconds=spent)
    return table


def _worker(course: Course) -> Worker:
    limits = course.config.limits
    bounded = msgspec.structs.replace(limits, seconds=min(limits.seconds, SECONDS))
    return Worker(bounded, course.folder / "profile.log", (str(Path.cwd()),), course.folder)
