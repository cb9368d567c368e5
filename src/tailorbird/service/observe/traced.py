"""Traced requests: the spans of one, by OpenTelemetry's semantic conventions, made when it is over."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from tailorbird.service.observe.access import GONE
from tailorbird.serving.dataplane import InferRequest
from tailorbird.serving.trail import Leg, Trail

_SERVERS_FAULT = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""gRPC's codes that make a server's span an error, by the semantic conventions for gRPC."""

Attributes = dict[str, str | int]


class Traced(ABC):
    """One request on its way.

    Args:
        tracer: makes its spans.
        parent: the context it came with.
    """

    def __init__(self, tracer: Any, parent: Any) -> None:
        self._tracer = tracer
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

        end = time.time_ns()
        if self._trail.version:
            self._about["tailorbird.version"] = self._trail.version
        span = self._tracer.start_span(self._name(), self._parent, trace.SpanKind.SERVER,
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

        span = self._tracer.start_span(name, context, attributes=attributes, start_time=self._ns(began))
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(ended))

    def _engine(self) -> Attributes:
        return {"tailorbird.engine": self._trail.engine} if self._trail.engine else {}

    def _ns(self, moment: float) -> int:
        """A moment of the monotonic clock in Unix nanoseconds."""
        return self._began + round((moment - self._zero) * 1e9)

    @abstractmethod
    def _name(self) -> str: ...

    @abstractmethod
    def _attributes(self) -> Attributes: ...

    @abstractmethod
    def _outcome(self, status: int | str) -> Attributes: ...

    @abstractmethod
    def _is_fault(self, status: int | str) -> bool:
        """Whether the server, and not the client, is to blame."""


class HttpTraced(Traced):
    """By the semantic conventions for HTTP server spans. Addresses and agents of clients are left out."""

    def __init__(self, tracer: Any, parent: Any, scope: Mapping[str, Any], model: str) -> None:
        super().__init__(tracer, parent)
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

    def __init__(self, tracer: Any, parent: Any, method: str) -> None:
        super().__init__(tracer, parent)
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
