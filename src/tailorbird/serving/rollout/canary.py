"""The canary: its share of the traffic, what became of it, and the moment when it is taken out.

Whatever goes wrong on the canary and not on the live version costs the client nothing but time: the data plane asks
the live version, too. A canary is stopped by the judge's evidence, or at once when :data:`DEAD_AFTER` requests in a row
broke on it that the live version answered, while the live version failed none.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.rollout.judge import Group, Judge, Outcome, Reason, Tail
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.rollout.split import Split
from tailorbird.serving.rollout.status import CanaryStatus, Side, Stop, quantiles_ms

DEAD_AFTER = 5
OPEN = 256
"""Groups that wait for answers; what the oldest still lacks counts as taking longer than it has taken so far."""
KNOWN = 2048
"""Answers of the live version whose quantiles say what is slow."""
_LEAST_KNOWN = 200
_LOOK_AGAIN = 64
"""Groups after which those quantiles are taken anew."""
_RECENT = 1024


class Turn:
    """One request, with one of the two versions."""

    __slots__ = ("began", "canary", "model", "odd", "outcome", "table")

    def __init__(self, model: LoadedModel, canary: bool, odd: bool, table: Table | None) -> None:
        self.model = model
        self.canary = canary
        self.odd = odd
        self.table = table
        self.began = time.monotonic()
        self.outcome: Outcome | None = None

    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began


class Table:
    """A group whose requests are on their way."""

    __slots__ = ("missing", "number", "tail", "turns")

    def __init__(self, number: int, size: int, tail: Tail) -> None:
        self.number = number
        self.missing = size
        self.tail = tail
        self.turns: list[Turn] = []

    def group(self, canary_is_odd: bool) -> Group | None:
        """What became of them; None where there is nothing to compare."""
        odd = next((turn.outcome for turn in self.turns if turn.odd), None)
        others = tuple(turn.outcome for turn in self.turns if turn.outcome is not None and not turn.odd)
        return Group(odd, others, canary_is_odd, self.tail, time.monotonic()) if odd is not None and others else None


class Tally:
    """What became of one side's requests."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.requests = 0
        self.errors = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.requests += 1
        self.errors += outcome.failed
        if not outcome.failed:
            self.recent.append(outcome.seconds)

    def side(self) -> Side:
        """In figures."""
        return Side(self.version, self.requests, self.errors, *quantiles_ms(self.recent))


class Canary:
    """A canary beside a live version.

    Args:
        live: the live version.
        model: the canary.
        options: its weight, and when it is worse.
        on_stop: told that it was stopped.
        chance: what the split leaves to chance.
    """

    def __init__(
        self,
        live: LoadedModel,
        model: LoadedModel,
        options: RolloutOptions,
        on_stop: Callable[[Stop], None],
        chance: random.Random | None = None,
    ) -> None:
        self.live = live
        self.model = model
        self.options = options
        self.stop: Stop | None = None
        self.faults = 0
        """Outcomes that could not be weighed, by a fault of ours."""
        self._on_stop = on_stop
        self._split = Split(options.weight, chance)
        self._judge = Judge(options.false_stops, options.slowdown)
        self._canary, self._live = Tally(model.version), Tally(live.version)
        self._tables: dict[int, Table] = {}
        self._table: Table | None = None
        self._known: deque[float] = deque(maxlen=KNOWN)
        self._tail = Tail()
        self._numbers = 0
        self._failed_in_a_row = 0
        self._worse: Reason | None = None

    def turn(self) -> Turn:
        """The next request's; not after the stop."""
        if self._split.begins:
            self._begin()
        seat = self._split.seat()
        model = self.model if seat.canary else self.live
        turn = Turn(model, seat.canary, seat.odd, self._table if seat.compared else None)
        if turn.table is not None:
            turn.table.turns.append(turn)
        return turn

    def over(self, turn: Turn, outcome: Outcome | None, *, broke: bool = False) -> None:
        """A request is over.

        Args:
            turn: the request's.
            outcome: what became of it; None where that was the client's doing, and tells nothing.
            broke: on the canary, by its engine's doing, and the live version has answered it.
        """
        if self.stop is not None:
            return
        if outcome is not None:
            (self._canary if turn.canary else self._live).add(outcome)
            self._count_in_a_row(turn, outcome, broke)
        turn.outcome = outcome
        if turn.table is not None:
            turn.table.missing -= 1
            if not turn.table.missing:
                self._weigh(turn.table)
        self._decide()

    def left(self, turn: Turn) -> None:
        """The client has gone before its answer: it would have taken longer than that."""
        if turn.table is not None and self.stop is None:
            turn.outcome = Outcome(turn.seconds())
            turn.table.missing -= 1
            if not turn.table.missing:
                self._weigh(turn.table)

    def status(self) -> CanaryStatus:
        """How it is doing."""
        canary, live, stop = self._canary.side(), self._live.side(), self.stop
        so_far = f"{self.faults} outcomes could not be weighed" if self.faults else "not worse beyond noise"
        return CanaryStatus(
            version=self.model.version,
            weight=self.options.weight if stop is None else 0.0,
            state="running" if stop is None else "stopped",
            canary=canary,
            live=live,
            evidence=self._judge.evidence if stop is None else stop.evidence,
            stops_at=self._judge.stops_at,
            verdict=stop.words if stop is not None else so_far,
            stop=stop,
        )

    def _begin(self) -> None:
        """One more group."""
        self._split.deal()
        self._numbers += 1
        size = self._split.size
        if not size:  # everything goes to one side
            self._table = None
            return
        self._table = self._tables[self._numbers] = Table(self._numbers, size, self._tail)
        if len(self._tables) > OPEN:
            oldest = self._tables[next(iter(self._tables))]
            for turn in oldest.turns:
                turn.table = None
                turn.outcome = turn.outcome or Outcome(turn.seconds())
            self._weigh(oldest)

    def _weigh(self, table: Table) -> None:
        del self._tables[table.number]
        group = table.group(self._split.canary_is_odd)
        if group is None:
            return
        self._judge.weigh(group)
        self._worse = self._judge.worse
        live: Sequence[Outcome] = group.others if group.canary_is_odd else (group.odd,)
        self._known.extend(outcome.seconds for outcome in live if not outcome.failed)
        if len(self._known) >= _LEAST_KNOWN and self._judge.groups % _LOOK_AGAIN == 0:
            self._tail = Tail(*np.quantile(self._known, (0.9, 0.99)).tolist())

    def _count_in_a_row(self, turn: Turn, outcome: Outcome, broke: bool) -> None:
        if turn.canary and outcome.failed:
            self._failed_in_a_row += broke
        elif turn.canary or outcome.failed:
            self._failed_in_a_row = 0

    def _decide(self) -> None:
        reason = Reason.DEAD if self._failed_in_a_row >= DEAD_AFTER else self._worse
        if reason is None:
            return
        canary, live = self._canary.side(), self._live.side()
        self.stop = Stop(
            at=time.time(),
            model=self.model.name,
            reason=reason,
            words=_words(reason, canary, live),
            evidence=self._judge.evidence,
            canary=canary,
            live=live,
        )
        self._tables.clear()
        with contextlib.suppress(Exception):  # whoever is told must not fail the request that happened to be last
            self._on_stop(self.stop)


def _words(reason: Reason, canary: Side, live: Side) -> str:
    if reason is Reason.DEAD:
        return f"{DEAD_AFTER} requests in a row broke on it that the live version answered"
    if reason is Reason.ERRORS:
        return (f"{canary.errors} of {canary.requests} requests failed on it, "
                f"{live.errors} of {live.requests} on the live version")  # fmt: skip
    if reason is Reason.SLOWER:
        return f"slower than the live version: p50 {_ms(canary.p50_ms)} against {_ms(live.p50_ms)}"
    return f"slow more often than the live version: p99 {_ms(canary.p99_ms)} against {_ms(live.p99_ms)}"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} ms"
