"""A collector of traces: a real HTTP server that reads OTLP as its specification says."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Span:
    """One span as it arrived, with its resource."""

    def __init__(self, message: Any, resource: dict[str, Any]) -> None:
        self.name: str = message.name
        self.trace, self.id, self.parent = (one.hex() for one in (message.trace_id, message.span_id,
                                                                  message.parent_span_id))  # fmt: skip
        self.began, self.ended = message.start_time_unix_nano, message.end_time_unix_nano
        self.kind, self.status = message.kind, message.status.code
        self.attributes = _values(message.attributes)
        self.resource = resource


class Collector:
    """What has arrived so far, and where to send it."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.spans: list[Span] = []

    def wait(self, done: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans, once they are all that a test waits for."""
        until = time.monotonic() + 20
        while not done(self.spans):
            assert time.monotonic() < until, [span.name for span in self.spans]
            time.sleep(0.02)
        return self.spans


@contextmanager
def collector() -> Iterator[Collector]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _values(group.resource.attributes)
                found.spans.extend(Span(span, resource) for scope in group.scope_spans for span in scope.spans)
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Collector(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
