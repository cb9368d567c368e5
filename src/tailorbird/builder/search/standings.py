"""Standings: the table's rows before and after the finals, as pure functions over outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tailorbird.builder.search.choose import Choice
from tailorbird.domain.errors import StepCrashed, StepOutOfMemory, StepTimedOut, TailorbirdError
from tailorbird.domain.latency import Latency
from tailorbird.domain.outcome import Outcome, Status

Turns = Mapping[str, Sequence[Sequence[float]]]
"""Milliseconds of each finalist's runs, turn by turn."""

_STATUS = {StepCrashed: Status.CRASHED, StepTimedOut: Status.TIMED_OUT, StepOutOfMemory: Status.OUT_OF_MEMORY}


def least(outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    """Milliseconds of the fastest run at opt, of those that passed the gate and were measured."""
    standing = {name: outcome for name, outcome in outcomes.items() if outcome.status is Status.SLOWER}
    return {name: row.latency.min for name, o in standing.items() for row in o.latency if row.edge == "opt"}


def lost(outcome: Outcome, error: TailorbirdError) -> Outcome:
    """A candidate that an error ended: crashed, timed out, out of memory, or failed."""
    status = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), Status.FAILED)
    return msgspec.structs.replace(outcome, status=status, reason=error.message)


def settled(outcomes: Mapping[str, Outcome], turns: Turns, choice: Choice) -> dict[str, Outcome]:
    """The outcomes with the figures measured in turn, and the reason why each one won or lost.

    One that was no finalist keeps its own figures, taken at another moment; its reason compares like with like.
    """
    fresh = {name: _with_opt(outcome, turns.get(name, ())) for name, outcome in outcomes.items()}
    best, quickest = fresh[choice.winner].median or 1.0, least(outcomes)
    for name, outcome in fresh.items():
        if name == choice.winner:
            fresh[name] = msgspec.structs.replace(outcome, status=Status.CHOSEN, reason=choice.reason)
        elif name in quickest and name in turns:
            reason = f"{(outcome.median or best) / best:.2f}x the chosen engine's latency, measured in turn"
            fresh[name] = msgspec.structs.replace(outcome, reason=reason)
        elif name in quickest:
            reason = f"least run {quickest[name] / min(quickest.values()):.2f}x the best one's: no finalist"
            fresh[name] = msgspec.structs.replace(outcome, reason=reason)
    return fresh


def order(outcome: Outcome) -> tuple[int, float]:
    """Sort key of the table: the chosen one, then the measured by median, then the rest."""
    measured = outcome.status in (Status.CHOSEN, Status.SLOWER, Status.STOPPED)
    rank = 0 if outcome.status is Status.CHOSEN else 1 if measured else 2
    return rank, outcome.median or 0.0


def _with_opt(outcome: Outcome, turns: Sequence[Sequence[float]]) -> Outcome:
    samples = [sample for turn in turns for sample in turn]
    if not samples:
        return outcome
    measured = Latency.of(samples)
    rows = [msgspec.structs.replace(row, latency=measured) if row.edge == "opt" else row for row in outcome.latency]
    return msgspec.structs.replace(outcome, latency=tuple(rows))
