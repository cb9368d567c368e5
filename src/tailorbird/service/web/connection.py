"""One HTTP connection: uvicorn's, with limits on what precedes a body, on slow clients, and on what nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tailorbird.service.guard.front import NAMES
from tailorbird.service.guard.tls import Following, names_of
from tailorbird.service.limits import Limits
from tailorbird.service.web import wire
from tailorbird.service.web.presence import KEY, Presence

HEAD_BYTES = 64 << 10
"""Bytes of a request line, headers and trailers that may wait for their end."""
HEADERS = 100
PIPELINE = 32
"""Requests of one connection that may wait for the one before them; beyond it no more is read."""
_REFUSAL = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
_BAD_REQUEST = b"400 Bad Request"
_TIMEOUT = b"408 Request Timeout"
_CROWDED = b"503 Service Unavailable\r\nretry-after: 1"


class _Flow(FlowControl):
    """uvicorn's, which goes on reading as soon as any request is taken up, however many wait."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if len(self._pipeline) <= PIPELINE:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which would buffer a head of any size and answer a broken one in plain text.

    Args:
        limits: how long a client may take.
    """

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._finished_pieces = 0
        self._unfinished_bytes = 0
        self._presence = Presence()
        self._names: tuple[str, ...] = ()
        self._heard = self._begun = self.loop.time()
        self._unread = 0
        self._unread_since = 0.0
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is there."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        context = transport.get_extra_info("sslcontext")
        if isinstance(context, Following):
            context.shaken(transport.get_extra_info("ssl_object"))
        if len(self.connections) > self._limits.connections:
            self._refuse(_CROWDED, f"the server has too many connections: expected at most {self._limits.connections}")
        self._names = names_of(transport.get_extra_info("peercert"))

    def data_received(self, data: bytes) -> None:
        """Bytes that finish neither a head nor a piece of a body are waiting in the parser: count them."""
        self._heard = self.loop.time()
        if not self._unfinished_bytes:
            self._begun = self._heard
        before = self._finished_pieces
        super().data_received(data)
        self._unfinished_bytes = self._unfinished_bytes + len(data) if before == self._finished_pieces else 0
        if self._unfinished_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"the request's head is too large: expected at most {HEAD_BYTES} bytes")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: nobody waits for the answer that is on its way."""
        self._presence.leave()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """A head is whole; raising makes the parser give up, which is answered with 400."""
        self._finished_pieces += 1
        if len(self.headers) > HEADERS:
            raise ValueError("too many headers")
        scope: Any = self.scope  # which others may carry what they like in, too
        scope[KEY] = self._presence
        if self._names:
            scope[NAMES] = self._names
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body went on its way."""
        self._finished_pieces += 1
        super().on_body(body)

    def check(self, now: float) -> None:
        """End the connection of a client that takes too long; called now and then.

        Args:
            now: by the loop's clock.
        """
        if self._reads_nothing(now):
            self.transport.abort()
        elif not self.transport.is_closing() and self._sends_too_slowly(now):
            self._refuse(_TIMEOUT, f"the request did not arrive within {self._limits.read_seconds:g} s")

    def give_up(self) -> None:
        """The server ends, and has waited long enough: for the rest of a request, or for a client's goodbye."""
        cycle: RequestResponseCycle | None = self.cycle
        if self.transport.is_closing():
            if not self.transport.get_write_buffer_size():  # under TLS a client that rests says none
                self.transport.abort()
        elif cycle is not None and cycle.more_body and not cycle.response_complete:
            self._refuse(_CROWDED, "the server is shutting down")

    def send_400_response(self, msg: str) -> None:
        """The protocol's error body, then the end of the connection."""
        self._refuse(_BAD_REQUEST, msg.rstrip("."))

    def _sends_too_slowly(self, now: float) -> bool:
        """A head counts from its first byte, a body from its latest, a silent connection from its beginning."""
        cycle: RequestResponseCycle | None = self.cycle  # the latest request; None before the first
        if self.flow.read_paused:  # by us
            self._heard = self._begun = now
        if cycle is not None and not cycle.response_complete:
            return cycle.more_body and now - self._heard > self._limits.read_seconds
        if self._unfinished_bytes:
            return now - self._begun > self._limits.read_seconds
        return cycle is None and now - self._heard > self._limits.idle_seconds

    def _reads_nothing(self, now: float) -> bool:
        """Whether what was written has not become less for too long."""
        unread = self.transport.get_write_buffer_size()
        if not unread or unread != self._unread:
            self._unread, self._unread_since = unread, now
        return bool(unread) and now - self._unread_since > self._limits.read_seconds

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _last_whole(self) -> RequestResponseCycle | None:
        """The latest request that has arrived; one that waits behind it and has not is never run."""
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._running
        return None if last is None or last.more_body else last

    def _refuse(self, status: bytes, message: str) -> None:
        """Answer what is no whole request.

        When the bytes before it were whole requests, those are answered first, and the connection ends with the last
        of them: a refusal now would pass for the answer to the first.
        """
        last = self._last_whole()
        if last is not None and not last.response_complete:
            last.keep_alive = False
            self.flow.pause_reading()
            return
        body = wire.encode_error(message)
        self.transport.write(_REFUSAL % (status, len(body)) + body)
        self.transport.close()
