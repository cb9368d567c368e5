"""A heat: one candidate, in a process of its own, built, looked at, gated, measured."""

from __future__ import annotations

import shutil

import msgspec

from tailorbird.backends.isolate import Worker
from tailorbird.builder.search import choose, standings, steps
from tailorbird.builder.search.course import STEPS, Course
from tailorbird.builder.search.measure import row_of
from tailorbird.builder.search.said import log_said
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.outcome import Outcome, Status


class Heats:
    """Runs heats one after another and remembers the best cost so far, so that what cannot win is stopped early."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self.best: float | None = None
        """Least cost, in milliseconds, of those that passed the gate."""

    def run(self, candidate: Candidate, margin: float = choose.LOOK_MARGIN, keep: bool = False) -> Outcome:
        """One candidate's outcome; whatever happens to it becomes a row.

        Args:
            candidate: not run before.
            margin: stopped when its first look costs more than this many times the best so far.
            keep: whether its engine is kept although it was stopped early.
        """
        course, engine = self._course, self._course.engine(candidate)
        with course.worker(engine.name) as worker:
            try:
                outcome = self._qualified(worker, candidate, margin)
            except TailorbirdError as error:
                outcome = standings.lost(Outcome(candidate, Status.FAILED, ""), error)
        log_said(course.log, candidate, engine)
        if outcome.status is not Status.SLOWER and not (keep and outcome.latency):
            shutil.rmtree(engine, ignore_errors=True)
        course.log.write("tried", candidate=candidate.name, status=outcome.status, reason=outcome.reason,
                         median=outcome.median, seconds=outcome.build_seconds)  # fmt: skip
        return outcome

    def _qualified(self, worker: Worker, candidate: Candidate, margin: float) -> Outcome:
        args = self._course.args(candidate)
        facts = self._looked_at(worker, args)
        if choose.cannot_win(self._least(facts), self.best, margin):
            return msgspec.structs.replace(facts, status=Status.STOPPED, reason=self._behind(facts))
        judged = worker.call(f"{STEPS}:gate_engine", args, steps.Judged)
        facts = msgspec.structs.replace(facts, gate=judged.gate, executed=judged.executed)
        if not judged.gate.passed:
            return msgspec.structs.replace(facts, status=Status.REFUSED, reason=judged.gate.verdict)
        measured = worker.call(f"{STEPS}:measure_engine", args, steps.Measured)
        return self._finished(msgspec.structs.replace(facts, latency=measured.rows))

    def _looked_at(self, worker: Worker, args: steps.StepArgs) -> Outcome:
        """Compiled, opened and run a few times; the graph is made first, outside the candidate's process."""
        candidate, course = args.candidate, self._course
        graph = course.lowering.graph(candidate)
        built = worker.call(f"{STEPS}:compile_engine", msgspec.structs.replace(args, model=str(graph)), steps.Compiled)
        place = course.racing_place
        look = worker.call(f"{STEPS}:first_look", msgspec.structs.replace(args, edge=place.edge), steps.Samples)
        row = row_of(place, candidate.instances, look.milliseconds)
        return Outcome(candidate, Status.SLOWER, "", (row,),
                       build_seconds=built.seconds, engine_bytes=built.engine_bytes)  # fmt: skip

    def _finished(self, outcome: Outcome) -> Outcome:
        goal = self._course.goal
        cost = goal.cost(outcome.latency)
        if cost is None:
            reason = f"no batch keeps its 99th percentile within {goal.slo_ms:g} ms"
            return msgspec.structs.replace(outcome, status=Status.STOPPED, reason=reason)
        self.best = min(filter(None, (self.best, cost)))
        return outcome

    def _least(self, outcome: Outcome) -> float:
        """The cost of the look's fastest run, whether or not it keeps to the SLO."""
        (row,) = outcome.latency
        return self._course.goal.cost_of(row.latency.min, row)

    def _behind(self, outcome: Outcome) -> str:
        assert self.best is not None
        return f"{self._least(outcome) / self.best:.2f}x the best at a first look, cannot win; not gated"
