"""HTTP: a bare ASGI callable. Convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tailorbird.domain.errors import Overloaded
from tailorbird.service import compression, wire
from tailorbird.service.faults import BodyTooLarge, WireError
from tailorbird.service.limits import Limits
from tailorbird.service.replies import Header, Reply, error_reply, html_reply, infer_reply, json_reply
from tailorbird.service.routes import Operation, Route, route
from tailorbird.service.status import status_page
from tailorbird.serving.dataplane import DataPlane, InferRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_READ = frozenset({b"content-length", b"content-encoding", b"inference-header-content-length"})


class ClientGone(Exception):
    """The client closed the connection before its request was whole: there is nobody to answer."""


class HttpService:
    """The protocol over HTTP.

    Args:
        plane: the operations.
        limits: what a request may be.
    """

    def __init__(self, plane: DataPlane, limits: Limits | None = None) -> None:
        self._plane = plane
        self._limits = limits or Limits()
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; never raises but for cancellation."""
        try:
            reply = await self._answer(scope, receive)
        except ClientGone:
            return
        except Exception as error:
            reply = error_reply(error)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        found = route(scope["method"], scope["raw_path"])
        if found.operation is Operation.MODEL_INFER:
            return await self._infer(found, _headers(scope["headers"]), receive)
        return self._describe(found)

    def _describe(self, found: Route) -> Reply:
        plane = self._plane
        match found.operation:
            case Operation.STATUS_PAGE:
                return html_reply(status_page(plane.status()))
            case Operation.SERVER_LIVE:
                return _health("live", plane.server_live())
            case Operation.SERVER_READY:
                return _health("ready", plane.server_ready())
            case Operation.MODEL_READY:
                return _health("ready", plane.model_ready(found.model, found.version), name=found.model)
            case Operation.MODEL_METADATA:
                return json_reply(wire.encode(plane.model_metadata(found.model, found.version)))
            case _:
                return json_reply(wire.encode(plane.server_metadata()))

    async def _infer(self, found: Route, headers: dict[bytes, bytes], receive: Receive) -> Reply:
        json_bytes = _json_bytes(headers)
        parts: list[bytes] = []
        try:
            body = await self._read(headers, receive, parts)
            request, form = self._decode(found, body, json_bytes)
            response = await self._plane.infer(request)
            return infer_reply(wire.encode_infer(response, form))
        finally:
            self._buffered -= sum(map(len, parts))

    def _decode(self, found: Route, body: bytes, json_bytes: int | None) -> tuple[InferRequest, wire.ReplyForm]:
        if json_bytes == 0:
            signature = self._plane.signature(found.model, found.version)
            return wire.decode_raw(body, signature, found.model, found.version, self._limits)
        return wire.decode_infer(body, json_bytes, found.model, found.version, self._limits)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, parts: list[bytes]) -> bytes:
        """The body, counted as it arrives; what is taken is noted in ``parts``, whatever happens."""
        limit = self._limits.body_bytes
        announced = headers.get(b"content-length", b"0")
        if int(announced) > limit:
            raise BodyTooLarge(limit, int(announced))
        total = 0
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            part = message.get("body", b"")
            more = message.get("more_body", False)
            total += len(part)
            if total > limit:
                raise BodyTooLarge(limit)
            self._take(part, parts)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        encoding = headers.get(b"content-encoding")
        return body if encoding is None else await self._decompress(encoding, body)

    def _take(self, part: bytes, parts: list[bytes]) -> None:
        if self._buffered + len(part) > self._limits.buffered_bytes:
            raise Overloaded("the server holds too many bodies at once", got=f"{self._buffered} bytes",
                             expected=f"at most {self._limits.buffered_bytes} bytes",
                             hint="send the request again in a moment")  # fmt: skip
        self._buffered += len(part)
        parts.append(part)

    async def _decompress(self, encoding: bytes, body: bytes) -> bytes:
        text = encoding.decode("latin-1")
        return await asyncio.to_thread(compression.decompress, text, body, self._limits.body_bytes)


def _headers(pairs: list[Header]) -> dict[bytes, bytes]:
    """The headers that matter here; each may stand once."""
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name in _READ:
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


def _health(what: str, good: bool, **names: str) -> Reply:
    """The specification's body. Not ready is 503, as load balancers expect; Triton says 400."""
    return json_reply(wire.encode({**names, what: good}), 200 if good else 503)
