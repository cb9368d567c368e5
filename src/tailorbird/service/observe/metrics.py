"""Metrics for Prometheus: Triton's names, and histograms by phase. Made of the statistics when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from tailorbird.serving.statistics import BOUNDS, Histogram, Phase, VersionStatistics

_LABELS = ("model", "version")

Entry = tuple[str, int, VersionStatistics, int]
"""A model's name, a version, its numbers, and how many requests are in it now."""

_COUNTERS: tuple[tuple[str, str, Callable[[VersionStatistics], float]], ...] = (
    ("nv_inference_request_success", "Requests answered", lambda one: one.answered.count),
    ("nv_inference_count", "Rows answered", lambda one: one.rows),
    ("nv_inference_exec_count", "Runs of the engine", lambda one: one.runs),
    ("nv_inference_request_duration_us", "Whole requests, in microseconds", lambda one: _us(one.answered)),
    ("nv_inference_queue_duration_us", "Waiting, by request", lambda one: _us(one.phases[Phase.QUEUE])),
    ("nv_inference_compute_input_duration_us", "Assembling, by run", lambda one: _us(one.phases[Phase.ASSEMBLE])),
    ("nv_inference_compute_infer_duration_us", "Running, by run", lambda one: _us(one.phases[Phase.RUN])),
    ("nv_inference_compute_output_duration_us", "Replying, by run", lambda one: _us(one.phases[Phase.REPLY])),
    ("tailorbird_padded_rows", "Rows run only to fill a batch", lambda one: one.padding),
    ("tailorbird_instance_crashes", "Times that an instance died", lambda one: one.crashes),
)


class Metrics:
    """The metrics of one server.

    Args:
        entries: called at each scrape for what is in service.
        others: called at each scrape for further families of metrics.
    """

    def __init__(self, entries: Callable[[], Iterable[Entry]], *others: Callable[[], Iterable[Metric]]) -> None:
        self._entries = entries
        self._others = others
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All metrics in the text format."""
        written: bytes = generate_latest(self._registry)
        return written.replace(b" untyped\n", b" counter\n")  # see _plain

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        entries = list(self._entries())
        for name, words, value in _COUNTERS:
            yield _counter(name, words, ((entry, value(entry[2])) for entry in entries))
        yield _failures(entries)
        yield _reasons(entries)
        yield _pending(entries)
        yield from _histograms(entries)
        for families in self._others:
            yield from families()


def _counter(name: str, words: str, values: Iterable[tuple[Entry, float]]) -> Metric:
    family = CounterMetricFamily(name, words, labels=_LABELS)
    for (model, version, _, _), value in values:
        family.add_metric((model, str(version)), value)
    return _plain(family)


def _failures(entries: Iterable[Entry]) -> Metric:
    family = CounterMetricFamily("nv_inference_request_failure", "Requests not answered", labels=(*_LABELS, "reason"))
    for model, version, found, _ in entries:
        for kind, count in found.failures.items():
            family.add_metric((model, str(version), kind), count)
    return _plain(family)


def _reasons(entries: Iterable[Entry]) -> Metric:
    family = CounterMetricFamily(
        "tailorbird_batches", "Runs, by why the batch had its size", labels=(*_LABELS, "reason")
    )
    for model, version, found, _ in entries:
        for reason, count in found.reasons.items():
            family.add_metric((model, str(version), reason), count)
    return family


def _pending(entries: Iterable[Entry]) -> Metric:
    family = GaugeMetricFamily("nv_inference_pending_request_count", "Requests accepted, not answered", labels=_LABELS)
    for model, version, _, pending in entries:
        family.add_metric((model, str(version)), pending)
    return family


def _histograms(entries: Iterable[Entry]) -> Iterator[Metric]:
    request = HistogramMetricFamily("tailorbird_request_seconds", "Whole requests that were answered", labels=_LABELS)
    phases = HistogramMetricFamily("tailorbird_phase_seconds", "Where the time goes", labels=(*_LABELS, "phase"))
    sizes = HistogramMetricFamily("tailorbird_run_seconds", "Runs, by rows", labels=(*_LABELS, "rows"))
    first = HistogramMetricFamily("nv_inference_first_response_histogram_ms", "Until the answer", labels=_LABELS)
    for model, version, found, _ in entries:
        labels = (model, str(version))
        request.add_metric(labels, buckets(found.answered), found.answered.sum)
        for phase, one in found.phases.items():
            phases.add_metric((*labels, phase), buckets(one), one.sum)
        for rows, one in sorted(found.sizes.items()):
            sizes.add_metric((*labels, str(rows)), buckets(one), one.sum)
        first.add_metric(labels, _in_ms(found.answered), found.answered.sum * 1e3)
    return iter((request, phases, sizes, first))


def _in_ms(one: Histogram) -> list[tuple[str, float]]:
    """Triton's histogram of the first response, in milliseconds; here each request has one response."""
    return [(bound if bound == "+Inf" else _bound(float(bound) * 1e3), count) for bound, count in buckets(one)]


def buckets(one: Histogram) -> list[tuple[str, float]]:
    """A histogram as the client library takes it: upper bound, and how many values are no larger."""
    total, found = 0, []
    for bound, count in zip((*map(_bound, BOUNDS), "+Inf"), one.counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


def _bound(seconds: float) -> str:
    return f"{seconds:.6g}"


def _us(one: Histogram) -> float:
    return round(one.sum * 1e6)


def _plain(family: CounterMetricFamily) -> Metric:
    """Triton's counters do not end in ``_total``, which the client library adds to all that it calls counters."""
    family.type = "unknown"
    for number, sample in enumerate(family.samples):
        family.samples[number] = sample._replace(name=family.name)
    return family
