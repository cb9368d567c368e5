"""Not run: candidates compiled for a device that is not here, or is not to be used; the most promising is taken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tailorbird.backends.host import usable_cores
from tailorbird.builder.gate.oracle import OracleArgs
from tailorbird.builder.search import standings, steps
from tailorbird.builder.search.course import STEPS, Course
from tailorbird.builder.search.foretell import ForetellArgs, Foretold, foretell
from tailorbird.builder.search.said import log_said
from tailorbird.domain.budget import GateReport
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.errors import NoEngineError, TailorbirdError
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision

_FORETELL = f"{foretell.__module__}:{foretell.__name__}"


def compiled(course: Course, candidates: Sequence[Candidate], why: str) -> tuple[Outcome, ...]:
    """Outcomes of all candidates, the taken one first. Nothing is opened, gated or measured.

    Taken is the first whose graph is known to hold the budget, because it is the source's own in FP32 or passed on this
    CPU; where nothing is known of any that compiled, the first of them.

    Args:
        course: what they are compiled from and where to.
        candidates: the most promising first.
        why: nothing is run, for people: ``no such device here``.

    Raises:
        NoEngineError: none compiled; its ``outcomes`` hold the table.
    """
    foretelling = _Foretelling(course)
    outcomes: list[Outcome] = []
    for candidate in candidates:  # the first has its turn whatever the time
        late = bool(outcomes) and course.out_of_time
        outcomes.append(_outcome(course, candidate, why, foretelling, late))
    standing = [outcome for outcome in outcomes if outcome.status is Status.NOT_RUN]
    if not standing:
        raise _none(outcomes)
    first = next((one for one in standing if foretelling.holds(one.candidate)), standing[0])
    of = f"first by promise of {len(standing)} that compiled"
    seen = foretelling.words(first.candidate)
    reason = f"not measured: {why}; {of}{seen}"
    course.log.write("chosen", candidate=first.candidate.name, reason=reason)
    taken = msgspec.structs.replace(first, status=Status.CHOSEN, reason=reason)
    for other in standing:
        if other is not first:
            shutil.rmtree(course.engine(other.candidate), ignore_errors=True)
    return (taken, *(outcome for outcome in outcomes if outcome is not first))


def _outcome(course: Course, candidate: Candidate, why: str, foretelling: _Foretelling, late: bool) -> Outcome:
    if late:
        reason = f"the time budget of {course.config.time_budget:g} s was used up"
        outcome = Outcome(candidate, Status.NOT_TRIED, reason)
    else:
        outcome = _compiled(course, candidate, why, foretelling)
    course.log.write("tried", candidate=candidate.name, status=outcome.status, reason=outcome.reason, median=None,
                     seconds=outcome.build_seconds)  # fmt: skip
    return outcome


def _compiled(course: Course, candidate: Candidate, why: str, foretelling: _Foretelling) -> Outcome:
    """A process of its own for each; whatever happens becomes a row."""
    engine = course.engine(candidate)
    try:
        graph = course.lowering.graph(candidate)
        gate = foretelling.gate(candidate, graph)
        if gate is not None and not gate.passed:
            return Outcome(candidate, Status.REFUSED, f"its graph, run on this CPU: {gate.verdict}", gate=gate)
        with course.worker(engine.name) as worker:
            given = msgspec.structs.replace(course.args(candidate), model=str(graph))
            built = worker.call(f"{STEPS}:only_compile", given, steps.Compiled)
    except TailorbirdError as error:
        log_said(course.log, candidate, engine)
        shutil.rmtree(engine, ignore_errors=True)
        return standings.lost(Outcome(candidate, Status.FAILED, ""), error)
    log_said(course.log, candidate, engine)
    reason = f"compiled; not measured: {why}{foretelling.words(candidate)}"
    return Outcome(candidate, Status.NOT_RUN, reason, build_seconds=built.seconds, engine_bytes=built.engine_bytes)


class _Foretelling:
    """What this machine's CPU says of lowered graphs, each asked about once."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._told: dict[Path, GateReport | None] = {}
        self._graphs: dict[str, Path] = {}

    def gate(self, candidate: Candidate, graph: Path) -> GateReport | None:
        """The gate's word on an ONNX graph at the opt place; None where the graph or the runtimes here tell none."""
        self._graphs[candidate.name] = graph
        if graph not in self._told:
            lowered = graph != self._course.lowering.normalised and graph.suffix == ".onnx"
            self._told[graph] = self._asked(candidate, graph) if lowered else None
        return self._told[graph]

    def holds(self, candidate: Candidate) -> bool:
        """Whether its graph is known to hold the budget: it is the source's own, or was seen to."""
        gate = self._told.get(self._graphs[candidate.name])
        plain = candidate.precision is Precision.FP32 and candidate.quantisation is None
        return plain or (gate is not None and gate.passed)

    def words(self, candidate: Candidate) -> str:
        """What was seen, to end a sentence with; empty where nothing was."""
        gate = self._told.get(self._graphs[candidate.name])
        return f"; its graph, run on this CPU: {gate.verdict}" if gate else ""

    def _asked(self, candidate: Candidate, graph: Path) -> GateReport | None:
        course = self._course
        batch = course.signature.batch_dim
        cases = tuple(case for case in course.cases if case.place.edge == course.places[0].edge)
        written = OracleArgs(
            model=str(graph),
            signature=course.signature,
            profile=candidate.profile,
            threads=usable_cores(),
            inputs=tuple(case.inputs for case in cases),
            outputs=tuple(case.outputs for case in cases),
        )
        least = course.signature.bind(candidate.profile.min)[batch] if batch else None
        args = ForetellArgs(written, cases, candidate.precision, course.config.budget, course.metric, least)
        try:
            with course.worker("foretell") as worker:
                gate = worker.call(_FORETELL, args, Foretold).gate
        except TailorbirdError as error:
            course.log.write("not foretold", candidate=candidate.name, reason=error.message)
            return None
        if gate.passed or gate.misses_accuracy:
            return gate
        course.log.write("not foretold", candidate=candidate.name, reason=gate.verdict)
        return None  # this CPU's runtime did not manage, which says nothing of the device


def _none(outcomes: Sequence[Outcome]) -> NoEngineError:
    reasons = "; ".join(dict.fromkeys(outcome.reason for outcome in outcomes)) or "no candidate to compile"
    error = NoEngineError("no candidate compiled", got=reasons, hint="see the table for each reason")
    error.outcomes = tuple(outcomes)
    return error
