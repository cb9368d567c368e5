"""OpenTelemetry: a trace of each inference request, sent to a collector over OTLP/HTTP, where that is configured.

What is sent, where to and how much of it is set by OpenTelemetry's own environment variables, read by its SDK. A
request's parent is the W3C ``traceparent`` of its headers or its metadata. Spans are made when a request is over, of
times noted on its way, so that one that is not sampled costs next to nothing. A collector that is slow or away is the
exporter's thread's affair: its queue is bounded, and what does not fit is dropped.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import tailorbird
from tailorbird.domain.errors import UsageError
from tailorbird.service.observe import journal
from tailorbird.service.observe.traced import GrpcTraced, HttpTraced, Traced

CLOSE_SECONDS = 3.0
"""For the last spans to leave, at the end of the server."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_SENDING = (
    "opentelemetry.exporter",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.sdk._shared_internal",  # its queue
    "opentelemetry.sdk.trace.sampling",  # of settings alone
)
"""Loggers that never see a request."""
_HEADERS = ("traceparent", "tracestate")


def telemetry_of(*, asked: bool) -> Telemetry | None:
    """Telemetry where it is wanted: asked for, or an endpoint is named in the environment.

    Raises:
        UsageError: it is asked for, and the extra is not installed; or a variable of OpenTelemetry's is wrong.
    """
    if not asked and not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    if _is_off():
        return None
    if all(map(_installed, _NEEDED)):
        return _made()
    if asked:
        raise UsageError("OpenTelemetry is not installed here", got="--otel", hint="pip install 'tailorbird[otel]'")
    journal.record("traces are off", level="warning", reason="an endpoint is named, OpenTelemetry is not installed",
                   hint="pip install 'tailorbird[otel]'")  # fmt: skip
    return None


def _made() -> Telemetry:
    try:
        return Telemetry()
    except (ValueError, OSError) as error:  # which the SDK raises at the first variable that it cannot take
        named = ", ".join(sorted(name for name in os.environ if name.startswith("OTEL_")))
        raise UsageError("OpenTelemetry does not start with the environment's settings", got=error,
                         hint=f"one of {named} is wrong") from None  # fmt: skip


class Telemetry:
    """Makes spans of requests and has them sent."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        _say_troubles_once()
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "tailorbird"}
        resource = Resource.create(named | {"service.version": tailorbird.__version__})
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer: Any = self._provider.get_tracer("tailorbird", tailorbird.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def http(self, scope: Mapping[str, Any], model: str) -> Traced:
        """A request over HTTP has come.

        Args:
            scope: of ASGI.
            model: as the path names it.
        """
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        return HttpTraced(self._tracer, self.parent(headers), scope, model)

    def grpc(self, metadata: Iterable[tuple[str, str | bytes]] | None, method: str) -> Traced:
        """A call over gRPC has come.

        Args:
            metadata: the call's own.
            method: ``package.Service/Method``.
        """
        texts = [(name, value) for name, value in metadata or () if isinstance(value, str)]
        return GrpcTraced(self._tracer, self.parent(texts), method)

    def parent(self, headers: Iterable[tuple[str, str]]) -> Any:
        """The context that the headers tell of; an empty one where they do not, or not once."""
        found: dict[str, list[str]] = {}
        for name, value in headers:
            if name in _HEADERS:
                found.setdefault(name, []).append(value)
        carrier = {name: ",".join(values) for name, values in found.items()}
        return self._propagator.extract(carrier)

    def close(self) -> None:
        """Send what is left; blocks for a few seconds at most, also where nobody takes it."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            self._exporter.shutdown()  # which ends its waiting between two attempts
            ending.join(CLOSE_SECONDS)


def _is_off() -> bool:
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return off or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


class _Journal(logging.Handler):
    """What the exporter complains of goes to the journal, but not again and again."""

    _EVERY = 60.0

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = -self._EVERY

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._last >= self._EVERY:
            self._last = now
            journal.record("traces could not be sent", level="warning", reason=record.getMessage()[:300])


def _say_troubles_once() -> None:
    """Only of sending: other parts repeat what a client wrote, a broken ``tracestate`` for one."""
    whole = logging.getLogger("opentelemetry")
    if whole.propagate:
        whole.addHandler(logging.NullHandler())
        whole.propagate = False
        told = _Journal()
        for name in _SENDING:
            logging.getLogger(name).addHandler(told)
