"""The judge: is a canary worse than the live version, beyond noise? It may be asked after every request.

The split deals out requests in groups of some ten that came one after another: at random, one of a group goes to the
canary and the others to the live version (or one to the live version, where the canary's weight is above one half).
Were the two versions alike, each of the group's outcomes would have been what it was wherever the request went, so the
odd one of a group of ``n`` is worst with probability ``1/n``, whatever else the server, its clients or the time of day
do to all of them. That is all that is assumed; it is R. A. Fisher's randomisation test (The Design of Experiments,
1935), and it holds for any distribution of latencies.

Each group gives an e-value: a number of at least 0 whose mean is at most 1 if the canary is no worse. With a weight
``g`` that grows with how bad an outcome is, that number is ::

    e = g(odd) / mean of g over the group                       (outcomes that happen or not: g = tilt, or 1)
    e = exp(tilt * rank of odd / n) / the mean over all ranks   (latencies)

Products of e-values are e-values, means of products as well. The judge holds such means over several tilts, over four
questions (errors; latency as a whole; slower than nine in ten, and than 99 in 100, of the live version's answers
before), and over starts of the product some hundred groups apart, with weights that add up to 1 at most, so that a
canary that gets worse after weeks is found, too. Latencies enter as the mean e-value of each tenth of a second. By
Ville's inequality the result reaches ``1 / false_stops`` with a probability of ``false_stops`` at most over the
canary's whole life, however often one looks: A. Ramdas, P. Grünwald, V. Vovk and G. Shafer, Game-theoretic statistics
and safe anytime-valid inference, Statistical Science 38(4), 2023.

The canary's latencies are divided by ``slowdown``, after :data:`SLACK_S` are taken off, before they are compared: what
makes a canary worse is to be slower than that. Then a canary at that very border is still stopped with the
probability ``false_stops`` at most, and one as fast as the live version far less often.
"""

from __future__ import annotations

import functools
import math
from enum import StrEnum

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array

SLACK_S = 1e-3
"""Seconds that never make a canary worse: an engine that is asked rarely finds its caches cold, its thread asleep."""
WINDOW_S = 0.1
"""Latencies are weighed together for so long: for some tens of milliseconds one process or the other may be without
a processor, which is one misfortune, however many requests it meets."""

RESTART = 256
"""Groups between two starts of the product."""
STARTS = 32
"""Products that are kept; the least promising goes first, which can only lower the evidence."""
LEAST = 1e-100
"""A product this small is none: it would not recover, and smaller numbers cost processors dear."""


class Reason(StrEnum):
    """What a canary is worse in."""

    ERRORS = "errors"
    SLOWER = "slower"
    SLOW_TAIL = "slow tail"
    DEAD = "dead"


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one request."""

    seconds: float
    """Until its answer, or until nobody waited for it any more."""
    failed: bool = False
    """The server failed; what the client got wrong is no outcome at all."""


class Tail(msgspec.Struct, frozen=True, gc=False):
    """What counts as slow, in seconds: quantiles of the live version's answers before the group was dealt out."""

    p90: float = math.inf
    p99: float = math.inf


class Group(msgspec.Struct, frozen=True, gc=False):
    """Requests that came one after another."""

    odd: Outcome
    """Of the one that went to the other version."""
    others: tuple[Outcome, ...]
    canary_is_odd: bool
    tail: Tail = Tail()
    at: float = 0.0
    """When the last of them was over, by the monotonic clock."""


_ERROR_TILTS = (2.0, 5.0, 20.0, 200.0)
_RANK_TILTS = (1.0, 3.0)
_TAIL_TILTS = (2.0, 6.0)
_QUESTIONS = (
    (Reason.ERRORS, 0.4, _ERROR_TILTS),
    (Reason.SLOWER, 0.3, _RANK_TILTS),
    (Reason.SLOW_TAIL, 0.15, _TAIL_TILTS),
    (Reason.SLOW_TAIL, 0.15, _TAIL_TILTS),
)
_SHARES = np.concatenate([np.full(len(tilts), share / len(tilts)) for _, share, tilts in _QUESTIONS])
_NOTHING = np.ones(len(_SHARES) - len(_ERROR_TILTS))
"""Of latencies that cannot be compared."""
_REASONS = tuple(reason for reason, _, tilts in _QUESTIONS for _ in tilts)


class Judge:
    """The evidence against one canary.

    Args:
        false_stops: the largest probability of ever reaching :attr:`stops_at` with a canary that is no worse.
        slowdown: how many times as long as the live version it may take.
    """

    def __init__(self, false_stops: float = 0.01, slowdown: float = 1.2) -> None:
        self.stops_at = 1 / false_stops
        self._slowdown = slowdown
        self._groups = 0
        self._products = np.empty((0, len(_SHARES)))  # with the weights of start, question and tilt in them
        self._parts = np.zeros(len(_SHARES))
        self._evidence = 1.0
        self._window = np.zeros(len(_NOTHING))
        self._in_window = 0
        self._window_ends = -math.inf

    @property
    def groups(self) -> int:
        """Groups weighed."""
        return self._groups

    @property
    def evidence(self) -> float:
        """Odds against the canary being no worse."""
        return self._evidence

    @property
    def worse(self) -> Reason | None:
        """What the canary is worse in beyond doubt; None while it may be no worse."""
        return self.leaning if self._evidence >= self.stops_at else None

    @property
    def leaning(self) -> Reason:
        """What most of the evidence says."""
        return _REASONS[int(self._parts.argmax())]

    def weigh(self, group: Group) -> None:
        """Take one more group into account, unless there is a verdict; nothing is learnt from one with no others."""
        if not group.others or self._evidence >= self.stops_at:
            return
        if self._groups % RESTART == 0:
            self._start(self._groups // RESTART)
        self._groups += 1
        values = self._values(group)
        self._products[:, : len(_ERROR_TILTS)] *= values[: len(_ERROR_TILTS)]
        self._time(values[len(_ERROR_TILTS) :], group.at)
        self._parts = self._products.sum(0)
        self._evidence = float(self._parts.sum())

    def _time(self, values: Array, at: float) -> None:
        """Latencies' e-values: those of a window that is over count as one."""
        if at >= self._window_ends:
            if self._in_window:
                self._products[:, len(_ERROR_TILTS) :] *= self._window / self._in_window
            self._window[:] = self._in_window = 0
            self._window_ends = at + WINDOW_S
        self._window += values
        self._in_window += 1

    def _start(self, number: int) -> None:
        """One more product. The weights 6 / (pi n)^2 of the starts n = 1, 2, ... add up to 1."""
        self._products[self._products < LEAST] = 0
        if len(self._products) == STARTS:
            self._products = np.delete(self._products, self._products.max(1).argmin(), 0)
        self._products = np.vstack([self._products, _SHARES * 6 / (math.pi * (number + 1)) ** 2])

    def _values(self, group: Group) -> Array:
        """The group's e-values, one for each question and tilt."""
        canary_is_odd, odd, others = group.canary_is_odd, group.odd, group.others
        failures = odd.failed + sum([one.failed for one in others])
        if odd.failed or failures == len(others):
            return _of_failures(odd.failed, failures, 1 + len(others), canary_is_odd)
        own = self._fair(odd.seconds, canary_is_odd)
        times = [self._fair(one.seconds, not canary_is_odd) for one in others if not one.failed]
        rank = sum([time < own for time in times]) + sum([time == own for time in times]) / 2
        p90, p99 = group.tail.p90, group.tail.p99
        slow = own > p90, sum([time > p90 for time in times]), own > p99, sum([time > p99 for time in times])
        return _of_all(failures, len(others) + 1, rank, slow, canary_is_odd)

    def _fair(self, seconds: float, canary: bool) -> float:
        return max(0.0, seconds - SLACK_S) / self._slowdown if canary else seconds


@functools.lru_cache(1024)
def _of_failures(odd: bool, failures: int, total: int, canary_is_odd: bool) -> Array:
    """Where there are no latencies to compare."""
    return np.concatenate([_happened(_ERROR_TILTS, odd, failures, total, canary_is_odd), _NOTHING])


@functools.lru_cache(8192)
def _of_all(failures: int, total: int, rank: float, slow: tuple[bool, int, bool, int], canary_is_odd: bool) -> Array:
    """Where the odd one was answered.

    Args:
        failures: of the others.
        total: of the group.
        rank: of the odd one's seconds among those answered, 0 for the fewest.
        slow: whether the odd one was slower than nine in ten, and how many others; the same for 99 in 100.
        canary_is_odd: or the live version is.
    """
    answered, (odd_90, others_90, odd_99, others_99) = total - failures, slow
    parts = [
        _happened(_ERROR_TILTS, False, failures, total, canary_is_odd),
        _ranked(rank, answered, canary_is_odd),
        _happened(_TAIL_TILTS, odd_90, odd_90 + others_90, answered, canary_is_odd),
        _happened(_TAIL_TILTS, odd_99, odd_99 + others_99, answered, canary_is_odd),
    ]
    return np.concatenate(parts)


def _happened(tilts: tuple[float, ...], odd: bool, events: int, total: int, canary_is_odd: bool) -> Array:
    """Of something that happens or not."""
    weights = np.array(tilts if canary_is_odd else [1 / tilt for tilt in tilts])
    return np.asarray((weights if odd else 1.0) * total / (events * weights + total - events))


def _ranked(rank: float, total: int, canary_is_odd: bool) -> Array:
    """Of seconds. Equal ones share the mean of their ranks: by Jensen's inequality that lowers the e-value's mean."""
    tilts = np.array(_RANK_TILTS) * (1 if canary_is_odd else -1) / total
    return np.asarray(np.exp(tilts * rank) / np.exp(np.outer(np.arange(total), tilts)).mean(0))
