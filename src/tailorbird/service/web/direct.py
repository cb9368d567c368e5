"""Small requests on the direct way: from the bytes to the service and back, without ASGI's ceremony between them.

uvicorn makes of each request a cycle with an event, a scope and a body that grows, asks for it by message and writes
the answer in two pieces. A small POST that is answered in less time than that takes goes straight to
:meth:`tailorbird.service.web.http.HttpService.reply`, the same that answers ASGI's requests; its answer is one write.

The first steps are taken where the bytes arrive, up to the first thing that has to be waited for. A run in the event
loop itself (:mod:`tailorbird.serving.batching.brief`) is often all there is, and then the answer leaves without another
turn of the loop; what is left otherwise is done by the connection's task.

The rules are the same on both ways. One request of a connection is answered at a time: what comes behind it waits
unread, or in uvicorn's pipeline. A body that is late is missed by the same clock, a client that does not read stops
its own answers alone, and a shutdown ends the connection behind the answer. Whatever is out of the ordinary goes
ASGI's way: other methods, bodies that are large, encoded or of no known length, ``Expect``, ``Connection: close``.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # documented, for who runs tasks of their own
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tailorbird.service.guard.front import NAMES
from tailorbird.service.web.bodies import Message
from tailorbird.service.web.connection import HEADERS, Connection
from tailorbird.service.web.heads import BODY, READ, Head, Heads
from tailorbird.service.web.heads import plain_head as _plain_head
from tailorbird.service.web.presence import KEY
from tailorbird.service.web.replies import Reply
from tailorbird.service.web.steps import Answering, Begun

_END = b"\r\n\r\n"
_CLOSE = (b"connection", b"close")

Service = Callable[[dict[str, Any], Callable[[], Awaitable[Message]]], Awaitable[Reply | None]]


class _Event:
    """Nobody waits for it."""

    def set(self) -> None:
        pass


class _Exchange:
    """A direct request and its answer, where uvicorn looks for a cycle: one for each connection, used again."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "more_body", "response_complete")

    def __init__(self) -> None:
        self.message_event = _Event()
        self.response_complete = True
        self.begin(more_body=False)
        self.response_complete = True

    def begin(self, *, more_body: bool) -> None:
        """A request has come, or its head has; a shutdown between the two ends the connection behind the answer."""
        self.more_body = more_body
        if self.response_complete:
            self.response_complete = False
            self.keep_alive = True
            self.disconnected = False


class DirectConnection(Connection):
    """A connection on which small requests take the direct way, where the application offers it.

    Args:
        heads: known to all connections of the listener.
    """

    def __init__(self, *args: Any, heads: Heads, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heads = heads
        self._service: Service | None = getattr(self.app, "reply", None)
        self._exchange: Any = _Exchange()
        self._head: Head | None = None  # of the direct request whose body the parser is in
        self._raw: tuple[bytes, int] | None = None  # what may be learnt from: bytes received, and where the head ends
        self._parts: list[bytes] = []
        self._missing = 0  # bytes of a body that goes past the parser
        self._scope: dict[str, Any] = {}
        self._scope_head: Head | None = None
        self._task: asyncio.Task[None] | None = None  # answers all direct requests of the connection, in turn
        self._next: asyncio.Future[Begun | None] = self.loop.create_future()  # while it has nothing to do
        self._answering = False
        self._later: list[bytes] = []
        self._between = True  # the parser has seen whole messages only
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._top = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: nothing more is to be answered."""
        super().connection_lost(exc)
        if not self._next.done():
            self._next.set_result(None)

    def check(self, now: float) -> None:
        """As of any connection; and one that was silent for long after its last answer is ended, without a timer."""
        super().check(now)
        resting = self.cycle is self._exchange and self._is_idle() and self._between and not self._unfinished_bytes
        if resting and now - self._heard > self._limits.idle_seconds and not self.transport.is_closing():
            self.transport.close()

    # --- bytes come ---

    def data_received(self, data: bytes) -> None:
        """Bytes behind a request that is being answered wait; a head that is known is not parsed again."""
        if self._answering:
            self._later.append(data)
            self.flow.pause_reading()
        elif self._missing:
            self._heard = self.loop.time()
            self._go_on(data)
        elif not self._goes_past_the_parser(data):
            super().data_received(data)
            self._raw = None

    def _goes_past_the_parser(self, data: bytes) -> bool:
        if self._service is None or not self._between or self._unfinished_bytes or not self._is_idle():
            return False
        end = data.find(_END) + len(_END)
        if end < len(_END):
            return False
        head = self._heads.find(data[:end])
        if head is None:
            self._raw = data, end
            return False
        self._heard = self.loop.time()
        if self.timeout_keep_alive_task is not None:  # of an answer that went ASGI's way
            self._unset_keepalive_if_required()
        if len(data) == end + head.length:  # nearly always
            self._begin(head, data[end:], at_once=True)
            return True
        self._missing = head.length
        self._head = head
        self._exchange.begin(more_body=True)
        self.cycle = self._running = self._exchange
        if head.length:
            self._go_on(data[end:])
        else:
            self._begin(head, b"")
            self._hold(data[end:])
        return True

    def _go_on(self, data: bytes) -> None:
        """More of a body of known length."""
        here, behind = data[: self._missing], data[self._missing :]
        self._missing -= len(here)
        self._parts.append(here)
        if not self._missing and self._head is not None:
            self._begin(self._head, self._collected())
            self._hold(behind)

    def _hold(self, behind: bytes) -> None:
        if behind:
            self._later.append(behind)
            self.flow.pause_reading()

    def _collected(self) -> bytes:
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _is_idle(self) -> bool:
        cycle: Any = self.cycle  # None before the first
        return cycle is None or cycle.response_complete

    # --- the parser speaks ---

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._between = False
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """A head is whole: this is where the ways part."""
        head = self._direct_head()
        if head is None:
            self._go_by_asgi()
            return
        self._finished_pieces += 1
        self._head = head
        self._exchange.begin(more_body=True)
        self.cycle = self._running = self._exchange

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self._head is None:
            super().on_body(body)
        else:
            self._finished_pieces += 1
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._between = True
        head = self._head
        if head is None:
            super().on_message_complete()
            return
        self._finished_pieces += 1
        body = self._collected()
        if self._raw is not None:
            data, end = self._raw
            if body == data[end:]:  # this head and this body, and nothing else
                self._heads.learn(data[:end], head)
        self._begin(head, body)

    def _direct_head(self) -> Head | None:
        if self._service is None or len(self.headers) > HEADERS or not self._is_idle():
            return None
        parser = self.parser
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive() or parser.should_upgrade():
            return None
        return _plain_head(parser.get_method(), self.url, self.headers)

    def _go_by_asgi(self) -> None:
        """Make the scope that uvicorn makes at a message's first byte: only these need one."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    # --- the answer goes ---

    def _begin(self, head: Head, body: bytes, *, at_once: bool = False) -> None:
        """Answer a request; ``at_once``, if possible, where nothing is known to come behind it."""
        self._head = None
        self._exchange.begin(more_body=False)
        self.cycle = self._running = self._exchange
        self._answering = True
        if self._task is None:
            self._task = self.loop.create_task(self._answer_all())
        self.tasks.add(self._task)
        answering = self._respond(self._scope_of(head, body))
        if at_once and asyncio.current_task() is None:
            self._take_first_steps(answering, self._task)
        else:
            self._next.set_result(Begun(answering))

    def _take_first_steps(self, answering: Answering, task: asyncio.Task[None]) -> None:
        """In the name of the task, which goes on from where they end."""
        _enter_task(self.loop, task)
        try:
            waits_for = answering.send(None)
        except StopIteration:
            pass
        except BaseException:  # as in the task
            self.transport.close()
            raise
        else:
            self._next.set_result(Begun(answering, waits_for, begun=True))
            return
        finally:
            _leave_task(self.loop, task)
        self._answered()

    def _scope_of(self, head: Head, body: bytes) -> dict[str, Any]:
        """What ASGI would say of the request: a copy, for others may carry what they like in it."""
        if self._scope_head is not head:
            self._scope_head, self._scope = head, self._new_scope(head)
        scope = self._scope.copy()
        scope[BODY] = body
        return scope

    def _new_scope(self, head: Head) -> dict[str, Any]:
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": self.scheme,
            "path": head.path,
            "raw_path": head.path,
            "query_string": b"",
            "headers": head.headers,
            "client": self.client,
            "server": self.server,
            KEY: self._presence,
            READ: head.read,
        }
        if self._names:
            scope[NAMES] = self._names
        return scope

    async def _answer_all(self) -> None:
        """One request after the other: a task of its own for each would cost as much as parsing its head."""
        try:
            while (begun := await self._wait()) is not None:
                await begun.rest()
                del begun  # and its body with it, for as long as nothing comes
                if self._presence.gone:
                    return
                self._next = self.loop.create_future()
                self._answered()
                if self._next.done():  # a pipeline does not keep the others waiting
                    await asyncio.sleep(0)
        except BaseException:  # the server is being ended
            self.transport.close()
            raise
        finally:
            if self._task is not None:
                self.tasks.discard(self._task)

    async def _wait(self) -> Begun | None:
        """For the next request; a cancellation that was meant for one already begun reaches it."""
        try:
            return await self._next
        except asyncio.CancelledError as error:
            if self._next.done() and not self._next.cancelled():
                begun = self._next.result()
                if begun is not None and begun.begun:
                    begun.breaks(error)
                    return begun
            raise

    async def _respond(self, scope: dict[str, Any]) -> None:
        async def receive() -> Message:  # for who does not look into the scope
            return {"type": "http.request", "body": scope[BODY], "more_body": False}

        assert self._service is not None
        reply = await self._service(scope, receive)
        if reply is not None:
            if self.flow.write_paused:  # the answers before this one are not read
                await self.flow.drain()
            self._write(reply)

    def _write(self, reply: Reply) -> None:
        if self._presence.gone:
            return
        headers = reply.headers
        if _CLOSE in headers:
            self._exchange.keep_alive = False
        elif not self._exchange.keep_alive:
            headers = [*headers, _CLOSE]
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.transport.write(b"%b%b\r\n%b" % (self._top_of(reply.status), lines, reply.body))

    def _top_of(self, status: int) -> bytes:
        """Status line, date and the like; made anew when uvicorn changes the date."""
        if self._default_headers is not self.server_state.default_headers:
            self._default_headers = self.server_state.default_headers
            self._top = b"".join(b"%b: %b\r\n" % pair for pair in self._default_headers)
        return STATUS_LINE[status] + self._top

    def _answered(self) -> None:
        """The next request may come, or the end of the connection."""
        self._answering = False
        if self._task is not None:
            self.tasks.discard(self._task)
        exchange = self._exchange
        exchange.response_complete = True
        if not exchange.keep_alive:
            self.transport.close()
        self._heard = self.loop.time()
        if self.pipeline:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._later:
            data, self._later = b"".join(self._later), []
            self.data_received(data)
