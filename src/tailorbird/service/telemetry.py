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
from tailorbird.service import journal
from tailorbird.service.access import GONE
from tailorbird.serving.dataplane import InferRequest
from tailorbird.serving.trail import Leg, Trail

CLOSE_SECONDS = 3.0
"""For the last spans to leave, at the end of the server."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_HEADERS = ("traceparent", "tracestate")
_SERVERS_FAULT = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""gRPC's codes that make a server's span an error, by the semantic conventions for gRPC."""

Attributes = dict[str, str | int]


def telemetry_of(*, asked: bool) -> Telemetry | None:
    """Telemetry where it is wanted: asked for, or an endpoint is named in the environment.

    Raises:
        UsageError: it is asked for, and the extra is not installed.
    """
    if not asked and not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    if _is_off():
        return None
    if all(map(_installed, _NEEDED)):
        return Telemetry()
    if asked:
        raise UsageError("OpenTelemetry is not installed here", got="--otel", hint="pip install 'tailorbird[otel]'")
    journal.record("traces are off", level="warning", reason="an endpoint is named, OpenTelemetry is not installed",
                   hint="pip install 'tailorbird[otel]'")  # fmt: skip
    return None


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
        self.tracer: Any = self._provider.get_tracer("tailorbird", tailorbird.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def http(self, scope: Mapping[str, Any], model: str) -> Traced:
        """A request over HTTP has come.

        Args:
            scope: of ASGI.
            model: as the path names it.
        """
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        return HttpTraced(self, self.parent(headers), scope, model)

    def grpc(self, metadata: Iterable[tuple[str, str | bytes]] | None, method: str) -> Traced:
        """A call over gRPC has come.

        Args:
            metadata: the call's own.
            method: ``package.Service/Method``.
        """
        texts = [(name, value) for name, value in metadata or () if isinstance(value, str)]
        return GrpcTraced(self, self.parent(texts), method)

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


class Traced:
    """One request on its way.

    Args:
        telemetry: who makes its spans.
        parent: the context it came with.
    """

    def __init__(self, telemetry: Telemetry, parent: Any) -> None:
        self._telemetry = telemetry
        self._parent = parent
        self._began = time.time_ns()
        self._zero = time.monotonic()
        self._trail = Trail()
        self._about: Attributes = {}

    def asks(self, request: InferRequest) -> Trail:
        """The request could be read; the trail is to travel with it."""
        self._about = {"tailorbird.model": request.model}
        first = next(iter(request.inputs.values()), None)
        if first is not None and first.ndim:
            self._about["tailorbird.rows"] = len(first)
        return self._trail

    def ends(self, status: int | str, error: BaseException | None = None) -> None:
        """It is answered, with that status of its protocol, because of that error."""
        from opentelemetry import trace

        tracer, end = self._telemetry.tracer, time.time_ns()
        if self._trail.version:
            self._about["tailorbird.version"] = self._trail.version
        span = tracer.start_span(self._name(), self._parent, trace.SpanKind.SERVER,
                                 self._attributes() | self._about, start_time=self._began)  # fmt: skip
        if span.is_recording():
            self._conclude(span, status, error)
            self._legs(trace.set_span_in_context(span))
        span.end(end)

    def _conclude(self, span: Any, status: int | str, error: BaseException | None) -> None:
        from opentelemetry.trace import Status, StatusCode

        span.set_attributes(self._outcome(status))
        if self._is_fault(status):
            span.set_attribute("error.type", str(status) if error is None else type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))

    def _legs(self, context: Any) -> None:
        """Where its time went: in the queue, and in the engine."""
        for leg in self._trail.legs:
            arrived = self._trail.arrived or leg.taken
            self._span("queue", context, arrived, leg.taken, {})
            self._span("run", context, leg.began, leg.ended, _about(leg) | self._engine(), failed=leg.failed)

    def _span(
        self, name: str, context: Any, began: float, ended: float, attributes: Attributes, *, failed: bool = False
    ) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._telemetry.tracer.start_span(name, context, attributes=attributes, start_time=self._ns(began))
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(ended))

    def _engine(self) -> Attributes:
        return {"tailorbird.engine": self._trail.engine} if self._trail.engine else {}

    def _ns(self, moment: float) -> int:
        """A moment of the monotonic clock in Unix nanoseconds."""
        return self._began + round((moment - self._zero) * 1e9)

    def _name(self) -> str:
        raise NotImplementedError

    def _attributes(self) -> Attributes:
        raise NotImplementedError

    def _outcome(self, status: int | str) -> Attributes:
        raise NotImplementedError

    def _is_fault(self, status: int | str) -> bool:
        """Whether the server, and not the client, is to blame."""
        raise NotImplementedError


class HttpTraced(Traced):
    """By the semantic conventions for HTTP server spans. Addresses and agents of clients are left out."""

    def __init__(self, telemetry: Telemetry, parent: Any, scope: Mapping[str, Any], model: str) -> None:
        super().__init__(telemetry, parent)
        self._scope = scope
        self._about = {"tailorbird.model": model}

    def _name(self) -> str:
        return f"{self._scope['method']} {self._route}"

    @property
    def _route(self) -> str:
        has_version = b"/versions/" in self._scope["raw_path"]
        return f"/v2/models/{{model}}{'/versions/{version}' if has_version else ''}/infer"

    def _attributes(self) -> Attributes:
        scope = self._scope
        return {
            "http.request.method": scope["method"],
            "http.route": self._route,
            "url.path": scope["raw_path"].decode("latin-1"),
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }

    def _outcome(self, status: int | str) -> Attributes:
        return {} if status == GONE else {"http.response.status_code": int(status)}

    def _is_fault(self, status: int | str) -> bool:
        return int(status) >= 500


class GrpcTraced(Traced):
    """By the semantic conventions for RPC and gRPC server spans."""

    def __init__(self, telemetry: Telemetry, parent: Any, method: str) -> None:
        super().__init__(telemetry, parent)
        self._method = method

    def _name(self) -> str:
        return self._method

    def _attributes(self) -> Attributes:
        return {"rpc.system.name": "grpc", "rpc.method": self._method}

    def _outcome(self, status: int | str) -> Attributes:
        return {"rpc.response.status_code": str(status)}

    def _is_fault(self, status: int | str) -> bool:
        return status in _SERVERS_FAULT


def _about(leg: Leg) -> Attributes:
    return {
        "tailorbird.batch.rows": leg.rows,
        "tailorbird.batch.requests": leg.requests,
        "tailorbird.batch.padding": leg.padding,
        "tailorbird.batch.reason": str(leg.reason),
    }


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
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(one, _Journal) for one in logger.handlers):
        logger.addHandler(_Journal())
        logger.propagate = False
