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
canary that gets worse after weeks is found, too. By Ville's inequality the result reaches ``1 / false_stops`` with a
probability of ``false_stops`` at most over the canary's whole life, however often one looks: A. Ramdas, P. Grünwald,
V. Vovk and G. Shafer, Game-theoretic statistics and safe anytime-valid inference, Statistical Science 38(4), 2023.

The canary's latencies are divided by ``slowdown``, after :data:`SLACK_S` are taken off, before they are compared: what
makes a canary worse is to be slower than that. Then a canary at that very border is still stopped with the
probability ``false_stops`` at most, and one as fast as the live version far less often.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array

SLACK_S = 250e-6
"""Seconds that never make a canary worse: an engine that is asked rarely finds its caches cold."""

RESTART = 256
"""Groups between two starts of the product."""
STARTS = 32
"""Products that are kept; the least promising goes first, which can only lower the evidence."""


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


_ERROR_TILTS = (2.0, 5.0, 20.0, 200.0)
_RANK_TILTS = (1.0, 3.0)
_TAIL_TILTS = (2.0, 6.0)
_QUESTIONS = (
    (Reason.ERRORS, 0.4, _ERROR_TILTS),
    (Reason.SLOWER, 0.3, _RANK_TILTS),
    (Reason.SLOW_TAIL, 0.15, _TAIL_TILTS),
    (Reason.SLOW_TAIL, 0.15, _TAIL_TILTS),
)
_SHARES = np.log(np.concatenate([np.full(len(tilts), share / len(tilts)) for _, share, tilts in _QUESTIONS]))
_NOTHING = np.zeros(len(_SHARES) - len(_ERROR_TILTS))
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
        self._products = np.empty((0, len(_SHARES)))  # logarithms, with the weight of start and question in them
        self._parts = np.zeros(len(_SHARES))

    @property
    def groups(self) -> int:
        """Groups weighed."""
        return self._groups

    @property
    def evidence(self) -> float:
        """Odds against the canary being no worse."""
        return float(self._parts.sum()) if self._groups else 1.0

    @property
    def worse(self) -> Reason | None:
        """What the canary is worse in beyond doubt; None while it may be no worse."""
        if not self._groups or self.evidence < self.stops_at:
            return None
        return self.leaning

    @property
    def leaning(self) -> Reason:
        """What most of the evidence says."""
        return _REASONS[int(self._parts.argmax())]

    def weigh(self, group: Group) -> None:
        """Take one more group into account; nothing is learnt from one with no others."""
        if not group.others:
            return
        if self._groups % RESTART == 0:
            self._start(self._groups // RESTART)
        self._groups += 1
        self._products += self._steps(group)
        self._parts = np.exp(np.minimum(self._products, 600.0)).sum(0)

    def _start(self, number: int) -> None:
        """One more product. The weights 6 / (pi n)^2 of the starts n = 1, 2, ... add up to 1."""
        if len(self._products) == STARTS:
            self._products = np.delete(self._products, self._products.max(1).argmin(), 0)
        start = _SHARES + math.log(6 / (math.pi * (number + 1)) ** 2)
        self._products = np.vstack([self._products, start])

    def _steps(self, group: Group) -> Array:
        """The logarithms of the group's e-values, one for each question and tilt."""
        members = (group.odd, *group.others)
        failed = [one.failed for one in members]
        canary_is_odd = group.canary_is_odd
        errors = _happened(_ERROR_TILTS, failed, canary_is_odd)
        if group.odd.failed or sum(failed) == len(failed) - 1:
            return np.concatenate([errors, _NOTHING])
        times = [self._fair(one.seconds, (place == 0) is canary_is_odd)
                 for place, one in enumerate(members) if not one.failed]  # fmt: skip
        slow = (_happened(_TAIL_TILTS, [time > limit for time in times], canary_is_odd)
                for limit in (group.tail.p90, group.tail.p99))  # fmt: skip
        return np.concatenate([errors, _ranked(times, canary_is_odd), *slow])

    def _fair(self, seconds: float, canary: bool) -> float:
        return max(0.0, seconds - SLACK_S) / self._slowdown if canary else seconds


def _happened(tilts: tuple[float, ...], happened: Sequence[bool], canary_is_odd: bool) -> Array:
    """Of something that happens or not; the first is the odd one's."""
    return _of_events(tilts, happened[0], sum(happened), len(happened), canary_is_odd)


@functools.lru_cache(4096)
def _of_events(tilts: tuple[float, ...], odd: bool, count: int, total: int, canary_is_odd: bool) -> Array:
    weights = np.array(tilts if canary_is_odd else [1 / tilt for tilt in tilts])
    return np.asarray(odd * np.log(weights) - np.log((count * weights + total - count) / total))


def _ranked(times: Sequence[float], canary_is_odd: bool) -> Array:
    """Of seconds; the first is the odd one's.

    Equal times share the mean of their ranks, which by Jensen's inequality only lowers the e-value's mean.
    """
    odd = times[0]
    equal = sum(time == odd for time in times) - 1
    return _of_rank(sum(time < odd for time in times) + equal / 2, len(times), canary_is_odd)


@functools.lru_cache(4096)
def _of_rank(rank: float, total: int, canary_is_odd: bool) -> Array:
    tilts = np.array(_RANK_TILTS) * (1 if canary_is_odd else -1) / total
    return np.asarray(tilts * rank - np.log(np.exp(np.outer(np.arange(total), tilts)).mean(0)))
