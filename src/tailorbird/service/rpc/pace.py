"""The pace of gRPC's calls: a client that says nothing does not keep one of the server's for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from tailorbird.service.limits import Limits

_Unary = Callable[[bytes, Any], Awaitable[bytes]]
_LATE = grpc.StatusCode.DEADLINE_EXCEEDED


def in_time(handlers: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Handlers by name, each of which waits so long for a call's one message; those of streams as they are.

    gRPC itself would wait as long as the client likes before it asks a handler: so these read for themselves.

    Args:
        handlers: those of :meth:`tailorbird.service.rpc.servicer.Servicer.handlers`.
        seconds: from a call's beginning to the end of its message.
    """
    return {
        name: one if one.request_streaming else _reading(one.unary_unary, seconds) for name, one in handlers.items()
    }


def _reading(call: _Unary, seconds: float) -> Any:
    async def answer(_: Any, context: Any) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                message = await context.read()
        except TimeoutError:
            await context.abort(_LATE, f"the message did not arrive within {seconds:g} s")
        if message is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        return await call(message, context)

    return grpc.stream_unary_rpc_method_handler(answer)


class Pace:
    """How long a stream may be silent, which it is not while an answer is being made.

    Args:
        limits: ``read_seconds`` for the first message, ``idle_seconds`` for each after it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._allowed = limits.read_seconds
        self._since = asyncio.get_running_loop().time()
        self._unanswered = 0
        self.overdue = ""
        """What the client is told when it was silent for too long; empty until then."""

    def answered(self) -> None:
        """An answer has left."""
        self._unanswered -= 1
        self._since = asyncio.get_running_loop().time()

    async def next(self, context: Any, drained: asyncio.Task[Any]) -> bytes | None:
        """The next message; None when the client has sent all, or nothing for too long, or the server ends."""
        reading = asyncio.ensure_future(context.read())
        try:
            while not reading.done() and not drained.done() and (left := self._left()) > 0:
                await asyncio.wait({reading, drained}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self.overdue = "" if drained.done() else f"no message arrived within {self._allowed:g} s"
                return None
            message = reading.result()
            if message is grpc.aio.EOF:
                return None
            self._allowed = self._limits.idle_seconds
            self._unanswered += 1
            return bytes(message)
        finally:
            reading.cancel()

    async def end(self, context: Any) -> None:
        """Tell a client that was silent for too long; raises as gRPC's ``abort`` does."""
        if self.overdue:
            await context.abort(_LATE, self.overdue)

    def _left(self) -> float:
        """Seconds until silence has lasted too long, or until it is time to look again."""
        if self._unanswered:
            return self._allowed
        return self._since + self._allowed - asyncio.get_running_loop().time()
