"""Status: what is known of a canary and a shadow, for the admin door, the status page and metrics."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np


class Side(msgspec.Struct, frozen=True):
    """One version's share of the traffic while a canary was beside it."""

    version: int
    requests: int = 0
    """Answered or failed; what the client got wrong or gave up does not count."""
    errors: int = 0
    p50_ms: float | None = None
    """Of the latest answers; None before the first."""
    p99_ms: float | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Why and when a canary was taken out of the traffic."""

    at: float
    """Unix time."""
    model: str
    reason: str
    """``errors``, ``slower``, ``slow tail`` or ``dead``."""
    words: str
    """The same for people, with the numbers."""
    evidence: float
    """Odds against the canary being no worse: the e-value at the stop."""
    canary: Side
    live: Side


class CanaryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a canary is doing beside the live version."""

    version: int
    weight: float
    """Of the traffic, now; 0 once it is stopped."""
    state: str
    """``running`` or ``stopped``."""
    canary: Side
    live: Side
    evidence: float
    """Odds against the canary being no worse; it is stopped when they reach ``stops_at``."""
    stops_at: float
    verdict: str
    """In words."""
    stop: Stop | None = None


class OutputAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """How close a shadow's output is to the live one, over all answers compared."""

    name: str
    compared: int
    mismatched: int = 0
    """Answers without that output, or of another shape or element type."""
    strange: int = 0
    """Elements that are NaN or infinite where the live ones are anything else."""
    max_abs_error: float | None = None
    """None where there was nothing to take it of: no floats, or nothing compared."""
    snr_db: float | None = None
    """Over all elements together."""
    worst_snr_db: float | None = None
    cosine: float | None = None
    """Mean over answers."""
    worst_cosine: float | None = None
    top1: float | None = None
    """Share of rows with the same winner, where the live output is a distribution over classes."""
    equal: float | None = None
    """Share of equal elements, where the output is not of floats."""


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a shadow is doing."""

    version: int
    share: float
    compared: int
    """Answers compared with the live ones."""
    errors: int
    """Copies that the shadow failed to answer."""
    dropped: int
    """Requests not copied because too many waited, or because copying would have held up the answer."""
    waiting: int
    p50_ms: float | None = None
    """Of the shadow's latest answers."""
    p99_ms: float | None = None
    live_p50_ms: float | None = None
    """Of the live answers to the same requests."""
    live_p99_ms: float | None = None
    latency_ratio: float | None = None
    """Shadow to live, request by request: the geometric mean."""
    outputs: tuple[OutputAgreement, ...] = ()
    last_error: str = ""


class RolloutStatus(msgspec.Struct, frozen=True):
    """Who answers for a model."""

    model: str
    live: int
    canary: CanaryStatus | None = None
    shadow: ShadowStatus | None = None


def quantiles_ms(seconds: Collection[float]) -> tuple[float | None, float | None]:
    """p50 and p99 in milliseconds; None where there is nothing to take them of."""
    if not seconds:
        return None, None
    p50, p99 = np.percentile(tuple(seconds), (50, 99)).tolist()
    return p50 * 1e3, p99 * 1e3
