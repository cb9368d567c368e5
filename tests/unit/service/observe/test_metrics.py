"""Metrics: Triton's names, read back by Prometheus' own parser."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tailorbird.domain.errors import Overloaded
from tailorbird.service.observe.metrics import Metrics
from tailorbird.serving.batching.queueing import Reason
from tailorbird.serving.batching.runs import Batch
from tailorbird.serving.statistics import VersionStatistics


def scraped(*names: str) -> dict[tuple[str, ...], float]:
    """Samples by name and sorted label values."""
    found = VersionStatistics()
    found.batch(Batch(4, 2, 1, Reason.FULL, (0.001, 0.002), 1e-4, 0.01, 1e-4))
    found.answer(0.012)
    found.answer(0.014)
    found.failure(Overloaded("full"), 0.0)
    text = Metrics(lambda: [('a "b"\n', 3, found, 7)]).text().decode()
    families = text_string_to_metric_families(text)
    return {
        (
            sample.name.removesuffix("_total"),  # the parser adds it to every counter
            *(value for key, value in sorted(sample.labels.items()) if key not in ("model", "version")),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_tritons_counters_have_tritons_names_and_values() -> None:
    samples = scraped()
    assert samples["nv_inference_request_success",] == 2
    assert samples["nv_inference_count",] == 4
    assert samples["nv_inference_exec_count",] == 1
    assert samples["nv_inference_request_duration_us",] == 26_000
    assert samples["nv_inference_queue_duration_us",] == 3_000
    assert samples["nv_inference_compute_infer_duration_us",] == 10_000
    assert samples["nv_inference_request_failure", "REJECTED"] == 1
    assert samples["nv_inference_pending_request_count",] == 7


def test_histograms_are_cumulative_and_end_in_all() -> None:
    samples = scraped()
    assert samples["tailorbird_request_seconds_bucket", "0.01"] == 0
    assert samples["tailorbird_request_seconds_bucket", "0.025"] == 2
    assert samples["tailorbird_request_seconds_bucket", "+Inf"] == samples["tailorbird_request_seconds_count",] == 2
    assert samples["tailorbird_phase_seconds_count", "queue"] == 2
    assert samples["tailorbird_run_seconds_count", "4"] == 1


def test_tritons_histogram_of_the_first_response_is_in_milliseconds() -> None:
    samples = scraped()
    name = "nv_inference_first_response_histogram_ms"
    assert (samples[f"{name}_bucket", "10"], samples[f"{name}_bucket", "25"]) == (0, 2)
    assert samples[f"{name}_bucket", "+Inf"] == samples[f"{name}_count",] == 2
    assert samples[f"{name}_sum",] == pytest.approx(26)


def test_why_a_batch_had_its_size_is_a_metric() -> None:
    samples = scraped()
    assert samples["tailorbird_batches", "full"] == 1
    assert samples["tailorbird_padded_rows",] == 1


def test_types_are_said_and_labels_escaped() -> None:
    text = Metrics(lambda: [('a "b"\n', 1, VersionStatistics(), 0)]).text().decode()
    assert "# TYPE nv_inference_request_success counter\n" in text
    assert r'model="a \"b\"\n"' in text
