"""HTTP: a bare ASGI callable. Convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from tailorbird.service.faults import NotAtThisDoor, Refused, UnknownPath, WireError
from tailorbird.service.guard.front import enter, refuse_pages
from tailorbird.service.guard.guard import hidden
from tailorbird.service.guard.scopes import ADMINISTRATION
from tailorbird.service.guard.tokens import EVERYBODY, Caller
from tailorbird.service.limits import Limits
from tailorbird.service.observe.access import GONE
from tailorbird.service.observe.witness import Witnesses
from tailorbird.service.routes import POSTED, Operation, Route, route
from tailorbird.service.web import wire
from tailorbird.service.web.admin import Entrance
from tailorbird.service.web.answers import describe
from tailorbird.service.web.bodies import Bodies, ClientGone, Message, Receive
from tailorbird.service.web.heads import BODY, READ, READ_HEADERS
from tailorbird.service.web.presence import Presence, presence_of
from tailorbird.service.web.replies import Header, Reply, error_reply, infer_reply, text_reply
from tailorbird.service.web.shared_memory import placed, regions_for
from tailorbird.serving.dataplane import DataPlane, InferRequest, InferResponse
from tailorbird.serving.hub import Asleep
from tailorbird.serving.shared_memory import Regions

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

ASIDE_BYTES = 256 << 10
"""Bytes of JSON that take milliseconds to read: larger bodies are read in a thread, so that others need not wait."""

_WITNESS = "tailorbird.witness"
_CALLER = "tailorbird.caller"


class HttpService:
    """The protocol over HTTP.

    Args:
        plane: the operations.
        limits: what a request may be.
        metrics: makes the text of ``/metrics``; without it there is no such path.
        entrance: who is let in, and whether for administration, too.
        witnesses: are told of each inference request.
    """

    def __init__(
        self,
        plane: DataPlane,
        limits: Limits | None = None,
        metrics: Callable[[], bytes] | None = None,
        *,
        entrance: Entrance | None = None,
        witnesses: Witnesses | None = None,
    ) -> None:
        self._plane = plane
        entrance = entrance or Entrance()
        self._guard, self._admin = entrance.guard, entrance.admin
        self._limits = limits or Limits()
        self._metrics = metrics
        self._witnesses = witnesses
        self._bodies = Bodies(self._limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; never raises but for cancellation."""
        reply = await self.reply(scope, receive)
        if reply is not None:
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            await send({"type": "http.response.body", "body": reply.body})

    async def reply(self, scope: Scope, receive: Receive) -> Reply | None:
        """The answer to one request, or None where its client has gone; never raises but for cancellation."""
        presence = presence_of(scope)
        try:
            return await self._answer(scope, receive, presence)
        except ClientGone:
            return None
        except asyncio.CancelledError:
            if not presence.gone:
                raise
            return None
        except Exception as error:
            self._count(error, scope)
            return error_reply(hidden(error, _caller(scope)))

    def _count(self, error: Exception, scope: Scope) -> None:
        """What is refused behind the guard is counted as what it refuses itself."""
        if isinstance(error, Refused) and self._guard is not None and _CALLER in scope:
            client = scope.get("client")
            self._guard.count(error, "http", str(client[0]) if client else "")

    async def _answer(self, scope: Scope, receive: Receive, presence: Presence) -> Reply:
        if self._guard is None:
            found = route(scope["method"], scope["raw_path"])
        else:
            entry = enter(self._guard, scope)
            found, scope[_CALLER] = entry.route, entry.caller
        if found.operation is not Operation.MODEL_INFER:
            return await self._described(found, scope, receive)
        if self._witnesses is not None:
            scope[_WITNESS] = self._witnesses.http(scope, found.model, found.version, _caller(scope).name)
            return await self._witnessed(found, scope, receive, presence)
        return await self._posted(found, scope, receive, presence)

    async def _described(self, found: Route, scope: Scope, receive: Receive) -> Reply:
        if found.operation is Operation.METRICS:
            return self._measured(scope)
        if found.operation in ADMINISTRATION:
            if self._admin is None:
                raise NotAtThisDoor(found.operation)
            refuse_pages(scope["headers"])
        parts: list[bytes] = []
        try:
            headers = _headers(scope["headers"])
            body = await self._bodies.read(headers, receive, parts) if found.operation in POSTED else b""
            if self._admin is not None and found.operation in ADMINISTRATION:
                return await self._admin.answer(found, body, _caller(scope))
            return describe(self._plane, found, body, _caller(scope))
        finally:
            self._bodies.let_go(parts)

    async def _witnessed(self, found: Route, scope: Scope, receive: Receive, presence: Presence) -> Reply:
        status, fault = GONE, None
        try:
            reply = await self._posted(found, scope, receive, presence)
            status = reply.status
        except ClientGone:
            raise
        except Exception as error:
            fault = error
            self._count(error, scope)
            reply = error_reply(hidden(error, _caller(scope)))
            status = reply.status
        finally:
            scope[_WITNESS].ends(status, fault)
        return reply

    async def _posted(self, found: Route, scope: Scope, receive: Receive, presence: Presence) -> Reply:
        headers = scope.get(READ) or _headers(scope["headers"])
        parts: list[bytes] = []
        try:
            body = scope.get(BODY)
            body = await self._bodies.read(headers, receive, parts) if body is None else self._bodies.whole(body, parts)
            json_bytes = _json_bytes(headers)
            regions = self._plane.regions
            if regions is not None:
                use = regions_for(regions, _caller(scope))
                request, form = await self._read(found, body, json_bytes, use)
            elif json_bytes == 0 or len(body) > ASIDE_BYTES:
                request, form = await self._read(found, body, json_bytes)
            else:
                request, form = self._decode(found, body, json_bytes)
            if _WITNESS in scope:
                request = scope[_WITNESS].asks(request)
            with presence:
                response = await self._plane.infer(request)
            if request.shared:
                response = placed(response, request.shared, self._plane.regions)
            if _json_size(response, form) > ASIDE_BYTES:
                return infer_reply(await asyncio.to_thread(wire.encode_infer, response, form))
            return infer_reply(wire.encode_infer(response, form))
        finally:
            self._bodies.let_go(parts)

    async def _read(
        self, found: Route, body: bytes, json_bytes: int | None, regions: Regions | Refused | None = None
    ) -> tuple[InferRequest, wire.ReplyForm]:
        size = len(body) if json_bytes is None else json_bytes
        aside = size > ASIDE_BYTES
        if not aside and (len(body) > ASIDE_BYTES or regions is not None):
            aside = _may_hold_strings(body[:size])
        if json_bytes == 0:  # whose shape the model's signature says
            await self._plane.awake(found.model, found.version)
        elif len(body) > ASIDE_BYTES:
            with suppress(Asleep):  # nothing is read for a model that is not there
                self._plane.signature(found.model, found.version)
        if aside:
            return await asyncio.to_thread(self._decode, found, body, json_bytes, regions)
        return self._decode(found, body, json_bytes, regions)

    def _decode(
        self, found: Route, body: bytes, json_bytes: int | None, regions: Regions | Refused | None = None
    ) -> tuple[InferRequest, wire.ReplyForm]:
        if json_bytes == 0:
            signature = self._plane.signature(found.model, found.version)
            return wire.decode_raw(body, signature, found.model, found.version, self._limits)
        return wire.decode_infer(body, json_bytes, found.model, found.version, self._limits, regions)

    def _measured(self, scope: Scope) -> Reply:
        if self._metrics is None:
            raise UnknownPath(scope["raw_path"].decode("ascii", "replace"))
        return text_reply(self._metrics())


def _caller(scope: Scope) -> Caller:
    """Who was let in; where no guard stands, everybody."""
    return scope.get(_CALLER, EVERYBODY)  # type: ignore[no-any-return]


def _headers(pairs: list[Header]) -> dict[bytes, bytes]:
    """The headers that matter here; each may stand once."""
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name in READ_HEADERS:
            if name in found:
                raise WireError(f"the header {name.decode()} is given twice")
            found[name] = value
    return found


def _json_bytes(headers: dict[bytes, bytes]) -> int | None:
    text = headers.get(b"inference-header-content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise WireError("Inference-Header-Content-Length is no length", got=repr(text.decode("latin-1")[:40]))
    return int(text)


def _may_hold_strings(text: bytes) -> bool:
    """Whether some tensor may be BYTES, which are taken apart one by one; JSON may spell the word with escapes."""
    return b"BYTES" in text or b"\\" in text


def _json_size(response: InferResponse, form: wire.ReplyForm) -> int:
    """About how many bytes of JSON an answer has: a number takes about eight."""
    size = 0
    for name, array in response.outputs.items():
        if not form.is_binary(name):
            size += 8 * array.size
    return size
