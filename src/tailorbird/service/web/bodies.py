"""Bodies of requests: read as they arrive, counted against the limits, decompressed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tailorbird.domain.errors import Overloaded
from tailorbird.service.faults import BodyTooLarge
from tailorbird.service.limits import Limits
from tailorbird.service.web import compression

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class ClientGone(Exception):
    """The client closed the connection before its request was whole: there is nobody to answer."""


class Bodies:
    """All bodies that one server holds.

    Args:
        limits: of one, and of all at once.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0
        """Bytes of all."""

    async def read(self, headers: dict[bytes, bytes], receive: Receive, parts: list[bytes]) -> bytes:
        """A body, counted as it arrives and as it is decompressed; what is held is in ``parts``, whatever happens.

        Raises:
            BodyTooLarge: it is announced to be, or is, over the limit.
            Overloaded: the server holds too many.
            ClientGone: it ended too early.
        """
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
        body = self._join(parts, 0)
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        return await self._decompressed(encoding, body, parts) if compression.is_compressed(encoding) else body

    def whole(self, body: bytes, parts: list[bytes]) -> bytes:
        """A body that has arrived, and is not encoded; noted in ``parts``, and raises, as :meth:`read`."""
        if len(body) > self._limits.body_bytes:
            raise BodyTooLarge(self._limits.body_bytes, len(body))
        self._take(body, parts)
        return body

    def let_go(self, parts: list[bytes]) -> None:
        """The body is done with."""
        self.held -= sum(map(len, parts))

    def _take(self, part: bytes, parts: list[bytes]) -> None:
        if self.held + len(part) > self._limits.buffered_bytes:
            raise Overloaded("the server holds too many bodies at once", got=f"{self.held} bytes",
                             expected=f"at most {self._limits.buffered_bytes} bytes",
                             hint="send the request again in a moment")  # fmt: skip
        self.held += len(part)
        parts.append(part)

    async def _decompressed(self, encoding: str, body: bytes, parts: list[bytes]) -> bytes:
        """A compressed body is held besides what has come out of it, until all has."""
        sent = len(parts)
        pieces = compression.pieces(encoding, body, self._limits.body_bytes)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            self._take(piece, parts)
        return self._join(parts, sent)

    def _join(self, parts: list[bytes], start: int) -> bytes:
        """Hold the parts from there on as one body, and nothing besides."""
        body = parts[start] if len(parts) == start + 1 else b"".join(parts[start:])
        self.held += len(body) - sum(map(len, parts))
        parts[:] = [body]
        return body
