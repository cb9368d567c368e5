"""Metrics of canaries and shadows, by model and version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tailorbird.serving.rollout.status import CanaryStatus, OutputAgreement, RolloutStatus, ShadowStatus

_LABELS = ("model", "version")
_One = TypeVar("_One", CanaryStatus, ShadowStatus)
_Number = float | None

_CANARY: tuple[tuple[str, str, Callable[[CanaryStatus], _Number]], ...] = (
    ("tailorbird_canary_weight", "Share of the requests it takes now", lambda one: one.weight),
    ("tailorbird_canary_stopped", "1 once it was found to be worse", lambda one: one.stop is not None),
    ("tailorbird_canary_evidence", "Odds against its being no worse", lambda one: one.evidence),
    ("tailorbird_canary_stops_at", "Odds at which it is stopped", lambda one: one.stops_at),
    ("tailorbird_canary_requests", "Requests it took", lambda one: one.canary.requests),
    ("tailorbird_canary_errors", "Requests it failed", lambda one: one.canary.errors),
    ("tailorbird_canary_live_requests", "Requests the live version took meanwhile", lambda one: one.live.requests),
    ("tailorbird_canary_live_errors", "Requests the live version failed meanwhile", lambda one: one.live.errors),
)
_SHADOW: tuple[tuple[str, str, Callable[[ShadowStatus], _Number]], ...] = (
    ("tailorbird_shadow_compared", "Answers compared with the live ones", lambda one: one.compared),
    ("tailorbird_shadow_errors", "Copies it failed to answer", lambda one: one.errors),
    ("tailorbird_shadow_dropped", "Requests not copied for want of room", lambda one: one.dropped),
    ("tailorbird_shadow_waiting", "Copies that wait for it", lambda one: one.waiting),
    ("tailorbird_shadow_latency_ratio", "Its latency to the live one's, geometric mean", lambda one: one.latency_ratio),
)
_OUTPUT: tuple[tuple[str, str, Callable[[OutputAgreement], _Number]], ...] = (
    ("tailorbird_shadow_snr_db", "Signal to noise over all answers, in dB", lambda one: one.snr_db),
    ("tailorbird_shadow_worst_snr_db", "The same of the worst answer", lambda one: one.worst_snr_db),
    ("tailorbird_shadow_max_abs_error", "The largest difference of an element", lambda one: one.max_abs_error),
    ("tailorbird_shadow_cosine", "Mean over answers", lambda one: one.cosine),
    ("tailorbird_shadow_top1", "Share of rows with the same winner", lambda one: one.top1),
    ("tailorbird_shadow_equal", "Share of equal elements", lambda one: one.equal),
    ("tailorbird_shadow_strange", "Elements that are NaN or infinite there only", lambda one: one.strange),
    ("tailorbird_shadow_mismatched", "Answers of another form", lambda one: one.mismatched),
)
_COUNTERS = frozenset({
    "tailorbird_canary_requests", "tailorbird_canary_errors", "tailorbird_canary_live_requests",
    "tailorbird_canary_live_errors", "tailorbird_shadow_compared", "tailorbird_shadow_errors",
    "tailorbird_shadow_dropped", "tailorbird_shadow_strange", "tailorbird_shadow_mismatched",
})  # fmt: skip


def traffic_families(rollouts: Callable[[], Iterable[RolloutStatus]]) -> Iterator[Metric]:
    """What is known of every canary and every shadow; a number that there is not yet has no line."""
    found = tuple(rollouts())
    canaries = [(one.model, one.canary) for one in found if one.canary is not None]
    shadows = [(one.model, one.shadow) for one in found if one.shadow is not None]
    yield from _families(_CANARY, canaries)
    yield from _families(_SHADOW, shadows)
    for name, words, value in _OUTPUT:
        family = _family(name, words, (*_LABELS, "output"))
        for model, shadow in shadows:
            for output in shadow.outputs:
                _add(family, (model, str(shadow.version), output.name), value(output))
        yield family


def _families(
    table: Iterable[tuple[str, str, Callable[[_One], _Number]]], entries: Iterable[tuple[str, _One]]
) -> Iterator[Metric]:
    for name, words, value in table:
        family = _family(name, words, _LABELS)
        for model, one in entries:
            _add(family, (model, str(one.version)), value(one))
        yield family


def _family(name: str, words: str, labels: tuple[str, ...]) -> Metric:
    kind = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
    return kind(name, words, labels=labels)


def _add(family: Metric, labels: tuple[str, ...], value: _Number) -> None:
    if value is not None:
        family.add_metric(labels, value)  # type: ignore[attr-defined]
