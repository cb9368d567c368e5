"""Metrics of changes: loads, swaps, evictions, failures, by model."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tailorbird.service.observe.metrics import buckets
from tailorbird.serving.rollout.controller import Controller
from tailorbird.serving.rollout.record import What

_COUNTED = (
    (What.LOADED, "tailorbird_model_loads", "Versions loaded: verified, started, warm, checked"),
    (What.FAILED, "tailorbird_model_load_failures", "Versions that did not load"),
    (What.LIVE, "tailorbird_model_swaps", "Times that another version became the one that answers"),
    (What.EVICTED, "tailorbird_model_evictions", "Times that a model was put away to make room"),
)


def change_families(controller: Controller) -> Iterator[Metric]:
    """What the controller's record comes to, and the memory that engines take where a budget is kept."""
    record = controller.record
    counts = record.counts.copy()
    for what, name, words in _COUNTED:
        family = CounterMetricFamily(name, words, labels=("model",))
        for (model, kind), count in counts.items():
            if kind is what and model:
                family.add_metric((model,), count)
        yield family
    seconds = HistogramMetricFamily("tailorbird_model_load_seconds", "Loads that succeeded")
    seconds.add_metric((), buckets(record.load_seconds), record.load_seconds.sum)
    yield seconds
    memory = GaugeMetricFamily("tailorbird_model_memory_bytes", "What a version takes", labels=("model", "version"))
    for (model, version), size in controller.memory().items():
        memory.add_metric((model, str(version)), size)
    yield memory
