"""Mixed precision: where INT8 is fast and misses its budget, the guilty layers are given back to float.

First the error of each group of layers is measured alone. Then the groups that bring most are kept in float, as many
as the budget is predicted to need, and the result runs a heat like any other candidate. By bisection the fewest
groups are found that hold the budget; it ends early when the result is no longer faster than what already passed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

import msgspec

from tailorbird.backends.isolate import Worker
from tailorbird.builder.quantise.methods import method
from tailorbird.builder.quantise.sensitivity import Noise, ProbeArgs, groups_of, probe
from tailorbird.builder.search.course import Course
from tailorbird.builder.search.heat import Heats
from tailorbird.builder.search.keep import Bracket, predicted
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.quantisation import Quantisation

SEEDS = 2
"""Candidates worth a search, the fastest first; each of a runtime of its own, whose methods differ little."""

MOST_ATTEMPTS = 5

_TELLING = frozenset({Status.REFUSED, Status.SLOWER, Status.STOPPED})
"""Ends of an attempt that say how much to keep; a crash says nothing."""

LEAST_GAIN = 1.1
"""A refused candidate must be this many times as fast as the best that passed: what is kept will take of its lead."""

_PROBE = f"{probe.__module__}:{probe.__name__}"


class Mixed:
    """Searches from the candidates that were refused for their accuracy alone.

    Args:
        course: what candidates are taken over.
        heats: runs the attempts, and knows the best cost that passed.
    """

    def __init__(self, course: Course, heats: Heats) -> None:
        self._course = course
        self._heats = heats

    def attempts(self, outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
        """Outcomes of mixed candidates, as they come."""
        for seed in self._seeds(outcomes):
            try:
                yield from self._search(seed)
            except TailorbirdError as error:
                self._course.log.write("mixed", seed=seed.candidate.name, stopped=error.message)

    def _seeds(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        wrong = {(o.candidate.target, o.candidate.precision) for o in outcomes
                 if o.status is Status.REFUSED and o.candidate.quantisation is None}  # fmt: skip
        found: dict[str, Outcome] = {}
        for outcome in sorted(outcomes, key=lambda one: self._cost(one) or 0.0):
            quantised = outcome.candidate.quantisation
            hopeless = quantised and (outcome.candidate.target, quantised.rest) in wrong
            if quantised and not hopeless and self._is_seed(outcome, quantised):
                found.setdefault(outcome.candidate.target.runtime, outcome)
        return list(found.values())[:SEEDS]

    def _is_seed(self, outcome: Outcome, quantised: Quantisation) -> bool:
        """Refused for accuracy alone, of a method that can mix, and clearly faster than whatever passed."""
        refused = outcome.status is Status.REFUSED and outcome.gate is not None and outcome.gate.only_accuracy
        cost, best = self._cost(outcome), self._heats.best
        return (
            refused
            and method(quantised.method).mixes
            and cost is not None
            and (best is None or LEAST_GAIN * cost < best)
        )

    def _cost(self, outcome: Outcome) -> float | None:
        return self._course.goal.least(outcome.latency)

    def _search(self, seed: Outcome) -> Iterator[Outcome]:
        groups = self._ranked(seed.candidate)
        bracket = Bracket(0, len(groups))
        count = predicted([noise.outputs for _, noise in groups], 10 ** (-self._course.config.budget.snr_db / 10))
        for _ in range(MOST_ATTEMPTS):
            if not bracket.few < count < bracket.many or self._course.out_of_time:
                return
            kept = tuple(name for names, _ in groups[:count] for name in names)
            outcome = self._heats.run(_keeping(seed.candidate, kept), margin=1.0)
            self._course.lowering.discard(_quantisation(outcome.candidate))
            yield outcome
            if outcome.status not in _TELLING:
                return
            refused = outcome.status is Status.REFUSED  # otherwise it passed, or it is slow and would only grow slower
            bracket = bracket.with_result(count, refused)
            count = bracket.following(refused) or 0

    def _ranked(self, candidate: Candidate) -> list[tuple[tuple[str, ...], Noise]]:
        """Groups of units with the error each brings, the guiltiest first."""
        lowering, quantised = self._course.lowering, candidate.quantisation
        assert quantised is not None
        units = lowering.units(quantised)
        groups, every, found = list(groups_of(units)), {unit.name for unit in units}, []
        with self._course.worker("sensitivity") as worker:
            for number, names in enumerate(groups, 1):
                self._course.log.write("probing", candidate=candidate.name, number=number, of=len(groups))
                found.append((names, self._noise(worker, candidate, every - set(names))))
        ranked = sorted(found, key=lambda one: -max(one[1].outputs.values()))
        self._course.log.write("sensitivity", candidate=candidate.name,
                               groups=[{"units": len(names), "first": names[0], "noise": noise.outputs}
                                       for names, noise in ranked])  # fmt: skip
        return ranked

    def _noise(self, worker: Worker, candidate: Candidate, kept: set[str]) -> Noise:
        """The error with these units kept in float; measured once for all builds of this graph and data."""
        probed = _in_float(candidate, tuple(sorted(kept)))
        assert probed.quantisation is not None
        return self._course.lowering.noted("sensitivity", probed.quantisation,
                                           lambda: self._probed(worker, probed), Noise)  # fmt: skip

    def _probed(self, worker: Worker, candidate: Candidate) -> Noise:
        assert candidate.quantisation is not None
        if self._course.out_of_time:
            raise TailorbirdError("the time budget was used up while the layers' errors were measured",
                                  hint="build again: what was measured is kept")  # fmt: skip
        lowering, engine = self._course.lowering, self._course.folder / "probe"
        graph = lowering.graph(candidate)
        args = ProbeArgs(candidate, self._course.signature, str(graph), str(engine), self._course.probes)
        try:
            return worker.call(_PROBE, args, Noise)
        finally:
            shutil.rmtree(engine, ignore_errors=True)
            lowering.discard(candidate.quantisation)


def _quantisation(candidate: Candidate) -> Quantisation:
    assert candidate.quantisation is not None
    return candidate.quantisation


def _keeping(candidate: Candidate, kept: tuple[str, ...]) -> Candidate:
    """The candidate with these units kept in the float precision of its rest."""
    assert candidate.quantisation is not None
    return msgspec.structs.replace(candidate, quantisation=msgspec.structs.replace(candidate.quantisation, kept=kept))


def _in_float(candidate: Candidate, kept: tuple[str, ...]) -> Candidate:
    """The candidate with these units kept, and the rest in FP32: only the quantised layers' own error shows."""
    assert candidate.quantisation is not None
    quantised = msgspec.structs.replace(candidate.quantisation, rest=Precision.FP32, kept=kept)
    return msgspec.structs.replace(candidate, quantisation=quantised)
