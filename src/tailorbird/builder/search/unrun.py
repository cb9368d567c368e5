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

_FORETELL = f"{foretell.__module__}:{foretell.__name__}"


def compiled(course: Course, candidates: Sequence[Candidate], why: str) -> tuple[Outcome, ...]:
    """Outcomes of all candidates, the taken one first. Nothing is opened, gated or measured.

    Args:
        course: what they are compiled from and where to.
        candidates: the most promising first.
        why: nothing is run, for people: ``no such device here``.

    Raises:
        NoEngineError: none compiled; its ``outcomes`` hold the table.
    """
    outcomes = [_outcome(course, candidate, why) for candidate in candidates]
    standing = [outcome for outcome in outcomes if outcome.status is Status.NOT_RUN]
    if not standing:
        raise _none(outcomes)
    first = standing[0]
    reason = f"not measured: {why}; first by promise of {len(standing)} that compiled"
    course.log.write("chosen", candidate=first.candidate.name, reason=reason)
    taken = msgspec.structs.replace(first, status=Status.CHOSEN, reason=reason)
    for other in standing[1:]:
        shutil.rmtree(course.engine(other.candidate), ignore_errors=True)
    return (taken, *(outcome for outcome in outcomes if outcome is not first))


def _outcome(course: Course, candidate: Candidate, why: str) -> Outcome:
    if course.out_of_time:
        late = f"the time budget of {course.config.time_budget:g} s was used up"
        outcome = Outcome(candidate, Status.NOT_TRIED, late)
    else:
        outcome = _compiled(course, candidate, why)
    course.log.write("tried", candidate=candidate.name, status=outcome.status, reason=outcome.reason, median=None,
                     seconds=outcome.build_seconds)  # fmt: skip
    return outcome


def _compiled(course: Course, candidate: Candidate, why: str) -> Outcome:
    """A process of its own for each; whatever happens becomes a row."""
    engine = course.engine(candidate)
    try:
        graph = course.lowering.graph(candidate)
        foretold = _foretold(course, candidate, graph)
        if foretold is not None and not foretold.passed:
            return Outcome(candidate, Status.REFUSED, f"its graph, run on this CPU: {foretold.verdict}", gate=foretold)
        with course.worker(engine.name) as worker:
            given = msgspec.structs.replace(course.args(candidate), model=str(graph))
            built = worker.call(f"{STEPS}:only_compile", given, steps.Compiled)
    except TailorbirdError as error:
        log_said(course, candidate)
        shutil.rmtree(engine, ignore_errors=True)
        return standings.lost(Outcome(candidate, Status.FAILED, ""), error)
    log_said(course, candidate)
    seen = f"; its graph, run on this CPU: {foretold.verdict}" if foretold else ""
    return Outcome(candidate, Status.NOT_RUN, f"compiled; not measured: {why}{seen}", build_seconds=built.seconds,
                   engine_bytes=built.engine_bytes)  # fmt: skip


def _foretold(course: Course, candidate: Candidate, graph: Path) -> GateReport | None:
    """The gate's word on a lowered ONNX graph at the opt place; None where the graph or the runtimes here tell none."""
    if graph == course.lowering.normalised or graph.suffix != ".onnx":
        return None
    place, batch = course.places[0], course.signature.batch_dim
    cases = tuple(case for case in course.cases if case.place.edge == place.edge)
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
            return worker.call(_FORETELL, args, Foretold).gate
    except TailorbirdError as error:
        course.log.write("not foretold", candidate=candidate.name, reason=error.message)
        return None


def _none(outcomes: Sequence[Outcome]) -> NoEngineError:
    reasons = "; ".join(dict.fromkeys(outcome.reason for outcome in outcomes)) or "no candidate to compile"
    error = NoEngineError("no candidate compiled", got=reasons, hint="see the table for each reason")
    error.outcomes = tuple(outcomes)
    return error
