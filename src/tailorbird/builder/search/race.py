"""The race: heats for every candidate worth one, mixed precision where INT8 was fast and wrong, then the finals."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tailorbird.builder.search import standings, steps
from tailorbird.builder.search.course import STEPS, Course
from tailorbird.builder.search.finals import Finals
from tailorbird.builder.search.heat import Heats
from tailorbird.builder.search.instances import side_by_side
from tailorbird.builder.search.mixed import Mixed
from tailorbird.builder.search.prune import reason_to_skip
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.errors import InputError
from tailorbird.domain.outcome import Outcome, Status


class Race:
    """One build's candidates, from the first to the winner."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._heats = Heats(course)
        self._outcomes: dict[str, Outcome] = {}
        self.podium: tuple[Outcome, ...] = ()
        """After the race: the chosen one and the runner-up, the best other one that was measured in turn."""

    def run(self, candidates: Sequence[Candidate], baseline: str = "") -> list[Outcome]:
        """Outcomes of all candidates, at most one of them chosen, the fastest first.

        Args:
            candidates: in the order to try them.
            baseline: name of the one that speed-ups are told against: always measured in the last round.
        """
        self._score_source(candidates[:1])
        for candidate in candidates:
            self._enter(candidate, keep=candidate.name == baseline)
        mixed = Mixed(self._course, self._heats)
        for outcome in mixed.attempts(tuple(self._outcomes.values())):
            self._outcomes[outcome.candidate.name] = outcome
        finals = Finals(self._course, baseline)
        settled = finals.decide(self._outcomes)
        self.podium = standings.podium(settled, finals.in_turn)
        return sorted(map(self._tabled, settled.values()), key=lambda one: standings.order(one, self._course.goal))

    def _score_source(self, candidates: Sequence[Candidate]) -> None:
        """Labels that even the source cannot be scored on end the build here, before anything long."""
        for candidate in candidates if self._course.metric else ():
            with self._course.worker("score") as worker:
                found = worker.call(f"{STEPS}:score_source", self._course.args(candidate), steps.Scores)
            self._course.log.write("scored", metric=self._course.metric, scores=found.scores)
            self._check(found.scores)

    def _check(self, scores: dict[str, float]) -> None:
        """A share of nothing is nothing: every engine would fail, after all the work."""
        for edge, score in scores.items():
            if score == 0 or (score < 0 and self._course.config.budget.drop is None):
                raise InputError(f"the source itself scores {score:g} at {edge}", expected="more than 0",
                                 hint="are these the labels of this model, and is this its metric?")  # fmt: skip

    def _enter(self, candidate: Candidate, keep: bool) -> None:
        reason = self._reason_not_to_try(candidate)
        if reason:
            outcome = Outcome(candidate, Status.NOT_TRIED, reason)
            self._course.log.write("tried", candidate=candidate.name, status=outcome.status, reason=reason,
                                   median=None, seconds=0.0)  # fmt: skip
        else:
            outcome = self._heats.run(candidate, keep=keep)
        self._outcomes[candidate.name] = outcome

    def _reason_not_to_try(self, candidate: Candidate) -> str:
        if self._course.out_of_time and self._outcomes:  # what people run without us is always tried
            return f"the time budget of {self._course.config.time_budget:g} s was used up"
        return reason_to_skip(candidate, self._outcomes.values())

    def _tabled(self, outcome: Outcome) -> Outcome:
        """The chosen engine's latency table also holds what happens when several of it run side by side."""
        if outcome.status is not Status.CHOSEN:
            return outcome
        args = self._course.args(outcome.candidate)
        rows = side_by_side(args, lambda: self._course.worker("side-by-side"), self._course.log)
        return msgspec.structs.replace(outcome, latency=(*outcome.latency, *rows))
