"""Observing: the recorder and the telemetry of one server, for as long as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric

from tailorbird.service.observe import journal
from tailorbird.service.observe.telemetry import Telemetry, telemetry_of
from tailorbird.service.options import ServerOptions
from tailorbird.serving.recording.recorder import Recorder


class Observers(msgspec.Struct, frozen=True):
    """Who watches; None where it was not asked for."""

    recorder: Recorder | None = None
    telemetry: Telemetry | None = None

    def families(self) -> Iterator[Metric]:
        """What the recorder says of itself to Prometheus."""
        if self.recorder is not None:
            yield CounterMetricFamily("tailorbird_recorded_requests", "Requests recorded", self.recorder.recorded)
            yield CounterMetricFamily(
                "tailorbird_recording_dropped_requests", "Requests that could not be recorded", self.recorder.dropped
            )


@contextmanager
def observing(options: ServerOptions) -> Iterator[Observers]:
    """What the options ask for; at the end what it holds is written and sent.

    Raises:
        UsageError: the recording's folder cannot be used, or OpenTelemetry is asked for and not installed.
    """
    with ExitStack() as ends:
        recorder = None
        if options.record:
            recorder = Recorder(Path(options.record), options.record_limit, _told)
            ends.callback(recorder.close)
        telemetry = telemetry_of(asked=options.otel)
        if telemetry is not None:
            ends.callback(telemetry.close)
        yield Observers(recorder, telemetry)


def _told(what: str, why: str) -> None:
    level: dict[str, str] = {"level": "warning", "reason": why} if why else {}
    journal.record(what, **level)
