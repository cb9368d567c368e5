"""The finals: those that passed and came close take turns, A B C A B C ..., until noise no longer decides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from tailorbird.backends.isolate import Worker
from tailorbird.builder.search import choose, standings, steps
from tailorbird.builder.search.course import STEPS, Course
from tailorbird.builder.search.measure import median
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.outcome import Outcome, Status

LEAST_ROUNDS = 7
MOST_ROUNDS = 15
FINAL_SECONDS = 45.0
LATE_ROUNDS = 5
"""After that long, this many rounds are enough."""

ROUND_SECONDS = 0.25

Turns = dict[str, list[Sequence[float]]]
"""Milliseconds of each finalist's every turn."""


class Finals:
    """The last rounds of one race.

    Args:
        course: what is raced over.
        baseline: name of the candidate that speed-ups are told against; always measured, if it ran at all.
    """

    def __init__(self, course: Course, baseline: str) -> None:
        self._course = course
        self._baseline = baseline
        self.in_turn: tuple[str, ...] = ()
        """Names of those that were measured in turn to the end, the one that was best there first."""

    def decide(self, outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
        """The outcomes with the winner chosen; should all finalists die, those behind them have their turn."""
        goal = self._course.goal
        while least := standings.least(outcomes, goal):
            turns = self._in_turn(outcomes, self._racing(outcomes, choose.finalists(least)))
            if self._over_slo(outcomes, turns):
                continue
            rounds = {name: costs for name, costs in self._costs(outcomes, turns).items() if name in least}
            if rounds:
                choice = choose.choose({n: outcomes[n].candidate for n in rounds}, rounds, self._baseline)
                self.in_turn = tuple(sorted(rounds, key=lambda name: median(rounds[name]))) + tuple(
                    turns.keys() - rounds
                )
                self._course.log.write("chosen", candidate=choice.winner, reason=choice.reason)
                return standings.settled(outcomes, turns, choice, goal)
        return outcomes

    def _over_slo(self, outcomes: dict[str, Outcome], turns: Turns) -> bool:
        """Whether somebody who kept to the SLO alone did not in turn; those are out, and the others race again."""
        slo, late = self._course.goal.slo_ms, []
        for name, taken in turns.items():
            p99 = float(np.percentile([sample for turn in taken for sample in turn], 99))
            if slo is not None and p99 > slo and outcomes[name].status is Status.SLOWER:
                late.append(name)
                reason = f"in turn its 99th percentile is {p99:.3g} ms, over the {slo:g} ms that are allowed"
                outcomes[name] = msgspec.structs.replace(outcomes[name], status=Status.STOPPED, reason=reason)
        return bool(late)

    def _racing(self, outcomes: Mapping[str, Outcome], finalists: list[str]) -> list[str]:
        """The finalists, and the baseline when it ran at all: even stopped early it is what people compare with."""
        baseline = outcomes.get(self._baseline)
        joins = baseline is not None and baseline.latency and self._baseline not in finalists
        return finalists + ([self._baseline] if joins else [])

    def _in_turn(self, outcomes: dict[str, Outcome], racing: list[str]) -> Turns:
        turns: Turns = {name: [] for name in racing}
        log = self._course.log
        deadline = log.seconds + FINAL_SECONDS
        with self._workers(racing) as workers:
            for number in range(1, MOST_ROUNDS + 1):
                self._round(outcomes, turns, workers)
                costs = self._costs(outcomes, turns)
                log.write("round", number=number, medians={name: round(cost[-1], 6) for name, cost in costs.items()})
                late = log.seconds > deadline and number >= LATE_ROUNDS
                if len(turns) < 2 or late or (number >= LEAST_ROUNDS and choose.decided(costs)):
                    break
        return turns

    def _round(self, outcomes: dict[str, Outcome], turns: Turns, workers: dict[str, Worker]) -> None:
        """One turn for each. One that dies drops out, and its row says why."""
        for name in list(turns):
            try:
                turns[name].append(self._turn(outcomes[name], workers[name]))
            except TailorbirdError as error:
                del turns[name]
                outcomes[name] = standings.lost(outcomes[name], error)

    def _turn(self, outcome: Outcome, worker: Worker) -> Sequence[float]:
        row = standings.deciding(outcome, self._course.goal)
        runs = max(3, min(200, int(ROUND_SECONDS * 1e3 / max(row.latency.median, 1e-3))))
        args = self._course.args(outcome.candidate, row.edge, runs)
        return worker.call(f"{STEPS}:sample_engine", args, steps.Samples).milliseconds

    def _costs(self, outcomes: Mapping[str, Outcome], turns: Turns) -> dict[str, list[float]]:
        """Every turn's median as cost, in milliseconds."""
        goal = self._course.goal
        rows = {name: standings.deciding(outcomes[name], goal) for name in turns}
        return {name: [goal.cost_of(median(turn), rows[name]) for turn in taken] for name, taken in turns.items()}

    @contextlib.contextmanager
    def _workers(self, racing: list[str]) -> Iterator[dict[str, Worker]]:
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(self._course.worker("rounds")) for name in racing}
