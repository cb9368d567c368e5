"""Standings: the table's rows before and after the finals, as pure functions over outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tailorbird.builder.search.choose import Choice
from tailorbird.domain.errors import StepCrashed, StepOutOfMemory, StepTimedOut, TailorbirdError
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.objective import Goal
from tailorbird.domain.outcome import Outcome, Status

Turns = Mapping[str, Sequence[Sequence[float]]]
"""Milliseconds of each finalist's runs, turn by turn."""

_STATUS = {StepCrashed: Status.CRASHED, StepTimedOut: Status.TIMED_OUT, StepOutOfMemory: Status.OUT_OF_MEMORY}


def least(outcomes: Mapping[str, Outcome], goal: Goal) -> dict[str, float]:
    """The cost, in milliseconds, of the fastest run of those that passed the gate and were measured."""
    standing = {name: outcome for name, outcome in outcomes.items() if outcome.status is Status.SLOWER}
    costs = {name: goal.least(outcome.latency) for name, outcome in standing.items()}
    return {name: cost for name, cost in costs.items() if cost is not None}


def deciding(outcome: Outcome, goal: Goal) -> LatencyRow:
    """The row that decides; the first look's, where nothing else was measured or nothing keeps to the SLO."""
    return goal.best(outcome.latency) or outcome.latency[0]


def lost(outcome: Outcome, error: TailorbirdError) -> Outcome:
    """A candidate that an error ended: crashed, timed out, out of memory, or failed."""
    status = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), Status.FAILED)
    return msgspec.structs.replace(outcome, status=status, reason=error.message)


def settled(outcomes: Mapping[str, Outcome], turns: Turns, choice: Choice, goal: Goal) -> dict[str, Outcome]:
    """The outcomes with the figures measured in turn, and the reason why each one won or lost.

    One that was no finalist keeps its own figures, taken at another moment; its reason compares like with like.
    """
    fresh = {name: _with_turns(outcome, turns.get(name, ()), goal) for name, outcome in outcomes.items()}
    best, quickest = _in_turn(fresh, outcomes, choice.winner, goal), least(outcomes, goal)
    for name, outcome in fresh.items():
        if name == choice.winner:
            fresh[name] = msgspec.structs.replace(outcome, status=Status.CHOSEN, reason=choice.reason)
        elif name in quickest and name in turns:
            times = _in_turn(fresh, outcomes, name, goal) / best
            fresh[name] = msgspec.structs.replace(outcome, reason=f"{times:.2f}x the chosen engine's {_cost(goal)}")
        elif name in quickest:
            reason = f"least run {quickest[name] / min(quickest.values()):.2f}x the best one's: no finalist"
            fresh[name] = msgspec.structs.replace(outcome, reason=reason)
    return fresh


def _in_turn(fresh: Mapping[str, Outcome], before: Mapping[str, Outcome], name: str, goal: Goal) -> float:
    """The cost measured in turn, at the row that decided before the turns."""
    edge = deciding(before[name], goal).edge
    row = next(row for row in fresh[name].latency if row.edge == edge)
    return goal.cost_of(row.latency.median, row)


def podium(outcomes: Mapping[str, Outcome], in_turn: Sequence[str]) -> tuple[Outcome, ...]:
    """The chosen one, and the first other of those measured in turn; nothing where none was chosen."""
    chosen = [outcome for outcome in outcomes.values() if outcome.status is Status.CHOSEN]
    others = [outcomes[name] for name in in_turn if outcomes[name].status is not Status.CHOSEN]
    return (*chosen, *others[:1]) if chosen else ()


def _cost(goal: Goal) -> str:
    return f"{'time a row' if goal.is_throughput else 'latency'}, measured in turn"


def order(outcome: Outcome, goal: Goal) -> tuple[int, float]:
    """Sort key of the table: the chosen one, then the measured by cost, then the rest."""
    measured = outcome.status in (Status.CHOSEN, Status.SLOWER, Status.STOPPED)
    rank = 0 if outcome.status is Status.CHOSEN else 1 if measured else 2
    return rank, outcome.cost(goal) or 0.0


def _with_turns(outcome: Outcome, turns: Sequence[Sequence[float]], goal: Goal) -> Outcome:
    samples = [sample for turn in turns for sample in turn]
    if not samples:
        return outcome
    measured, edge = Latency.of(samples), deciding(outcome, goal).edge
    rows = [msgspec.structs.replace(row, latency=measured) if row.edge == edge else row for row in outcome.latency]
    return msgspec.structs.replace(outcome, latency=tuple(rows))
