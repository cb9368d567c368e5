"""gRPC: bytes in, bytes out. Convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import msgspec

from tailorbird.domain.errors import Overloaded
from tailorbird.service.faults import NotAtThisDoor, NotOffered, Refused
from tailorbird.service.guard.guard import hidden
from tailorbird.service.limits import Limits
from tailorbird.service.observe.witness import Witness, Witnesses
from tailorbird.service.routes import Operation
from tailorbird.service.rpc import codes, messages, schema
from tailorbird.service.rpc.administrative import ADMINISTRATIVE
from tailorbird.service.rpc.gate import CALLER, model_allowed, model_of, still_known
from tailorbird.service.rpc.operations import HEALTH, INFERENCE, NOT_OFFERED, Described
from tailorbird.service.rpc.pace import Pace
from tailorbird.service.rpc.scan import split
from tailorbird.service.rpc.sharing import SHARED_MEMORY, Sharing
from tailorbird.service.web.admin import Entrance
from tailorbird.service.web.shared_memory import placed, regions_for, shared_memory_is_off
from tailorbird.serving.dataplane import DataPlane, InferRequest, InferResponse

PIPELINE = 16
"""Requests of one stream that wait or run at a time; further ones stay with the client."""

ASIDE_BYTES = 256 << 10
"""Bytes that take milliseconds to read one by one: that is done in a thread, so that others need not wait."""

_UNARY, _STREAM = f"{schema.INFERENCE}/ModelInfer", f"{schema.INFERENCE}/ModelStreamInfer"

_Unary = Callable[[bytes, Any], Awaitable[bytes]]


class Servicer:
    """The protocol over gRPC.

    Messages are taken as bytes, before anything is made of them: so they are counted against the limits, and
    bytes that are no message are the client's fault, where gRPC's own parsing would call them the server's.

    Args:
        plane: the operations.
        limits: what a request may be.
        witnesses: are told of each inference request.
        entrance: who may ask for which model, and whether for administration, too.
    """

    def __init__(
        self,
        plane: DataPlane,
        limits: Limits,
        *,
        witnesses: Witnesses | None = None,
        entrance: Entrance | None = None,
    ) -> None:
        entrance = entrance or Entrance()
        self._guard, self._admin = entrance.guard, entrance.admin
        self._plane = plane
        self._witnesses = witnesses
        self._limits = limits
        self._held = 0
        self._draining = asyncio.Event()

    def handlers(self) -> dict[str, dict[str, Any]]:
        """For each service, a handler by the name of each operation."""
        unary = {name: self._describe(name, operation) for name, operation in INFERENCE.items()}
        unary |= {name: self._administer(name) for name in ADMINISTRATIVE}
        unary |= {name: self._share(operation) for name, operation in SHARED_MEMORY.items()}
        unary |= {name: _refuse(name) for name in NOT_OFFERED if name not in unary}
        health = {name: self._describe(name, operation) for name, operation in HEALTH.items()}
        inference = self._unary_handlers({**unary, "ModelInfer": self._infer})
        stream = grpc.stream_stream_rpc_method_handler(self._stream)
        return {
            schema.INFERENCE: {**inference, "ModelStreamInfer": stream},
            schema.HEALTH: self._unary_handlers(health),
        }

    def drain(self) -> None:
        """Take no further request from streams: each ends once what it sent before is answered."""
        self._draining.set()

    def _describe(self, name: str, operation: Described) -> _Unary:
        async def answer(message: bytes, _: Any) -> bytes:
            request = messages.parse(operation.request, message)
            if self._guard is not None and (about := model_of(name, request)):
                model_allowed(self._guard, *about)
            return bytes((await operation.answer(self._plane, request)).SerializeToString())

        return answer

    def _administer(self, name: str) -> _Unary:
        change = ADMINISTRATIVE[name]

        async def answer(message: bytes, _: Any) -> bytes:
            if self._admin is None:
                raise NotAtThisDoor(change.operation)
            request = messages.parse(change.request, message)
            if self._guard is not None:
                model_allowed(self._guard, change.operation, request.model_name)
            return bytes((await change.answer(self._admin, request, CALLER.get())).SerializeToString())

        return answer

    def _share(self, change: Sharing) -> _Unary:
        async def answer(message: bytes, _: Any) -> bytes:
            if self._admin is None:
                raise NotAtThisDoor(change.operation)
            if self._plane.regions is None:
                raise shared_memory_is_off()
            request = messages.parse(change.request, message)
            return bytes(change.answer(self._plane.regions, request).SerializeToString())

        return answer

    async def _infer(self, message: bytes, context: Any) -> bytes:
        with self._witnessed(context, _UNARY) as witness, self._holding(message):
            request = await self._asked(message, context, witness)
            return messages.encode_infer(await self._answered(request))

    async def _asked(self, message: bytes, context: Any, witness: Witness | None) -> InferRequest:
        request = _within(await self._decode(message), context.time_remaining())
        return request if witness is None else witness.asks(request)

    async def _decode(self, message: bytes) -> InferRequest:
        header, blobs = split(message, self._limits)
        regions = regions_for(self._plane.regions, CALLER.get())
        decode = partial(messages.decode_parts, header, blobs, self._limits, regions, self._admit)
        far = len(message) > ASIDE_BYTES or regions is not None
        if len(header) > ASIDE_BYTES or (far and b"BYTES" in header):  # BYTES are taken apart one by one
            return await asyncio.to_thread(decode)
        return decode()

    def _admit(self, model: str) -> None:
        if self._guard is not None:
            model_allowed(self._guard, Operation.MODEL_INFER, model)

    @contextmanager
    def _witnessed(self, context: Any, method: str) -> Iterator[Witness | None]:
        """Who is told of a request, from before it is read to its end, whatever that is."""
        if self._witnesses is None:
            yield None
            return
        witness = self._witnesses.grpc(context.invocation_metadata(), method, CALLER.get().name)
        try:
            yield witness
        except BaseException as error:
            witness.ends(codes.code_of(error).name, error)
            raise
        witness.ends(grpc.StatusCode.OK.name)

    async def _answered(self, request: InferRequest) -> InferResponse:
        response = await self._plane.infer(request)
        return placed(response, request.shared, self._plane.regions) if request.shared else response

    async def _stream(self, _: Any, context: Any) -> None:
        """Requests are run side by side, and answered in the order in which they came."""
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(PIPELINE)
        pace = Pace(self._limits)
        async with asyncio.TaskGroup() as group:
            drained = group.create_task(self._draining.wait())
            read = partial(pace.next, context, drained)
            group.create_task(self._read_stream(read, context, group, answers))
            while (answer := await answers.get()) is not None:
                await context.write(await answer)
                pace.answered()
            drained.cancel()
        await pace.end(context)

    async def _read_stream(
        self,
        read: Callable[[], Awaitable[bytes | None]],
        context: Any,
        group: asyncio.TaskGroup,
        answers: asyncio.Queue[asyncio.Task[bytes] | None],
    ) -> None:
        while (message := await read()) is not None:
            await answers.put(group.create_task(self._answer_in_stream(message, context)))
        await answers.put(None)

    async def _answer_in_stream(self, message: bytes, context: Any) -> bytes:
        try:
            with self._witnessed(context, _STREAM) as witness, self._holding(message):
                if self._guard is not None:
                    still_known(self._guard)
                request = await self._asked(message, context, witness)
                final = bool(request.parameters.get(messages.ASKS_FOR_FINAL))
                return messages.encode_stream(await self._answered(request), final=final)
        except Exception as error:
            self._count(error, context)
            _, words = codes.status(hidden(error, CALLER.get()))
            return messages.encode_stream_error(words, messages.request_id(message, self._limits))

    def _count(self, error: Exception, context: Any) -> None:
        """What is refused behind the gate is counted as what the gate refuses itself."""
        if isinstance(error, Refused) and self._guard is not None:
            self._guard.count(error, "grpc", context.peer())

    def _unary_handlers(self, operations: dict[str, _Unary]) -> dict[str, Any]:
        return {name: grpc.unary_unary_rpc_method_handler(self._answering(call)) for name, call in operations.items()}

    def _answering(self, call: _Unary) -> _Unary:
        """The operation, with its errors as status codes. Cancellation passes: the client has left."""

        async def answer(message: bytes, context: Any) -> bytes:
            try:
                return await call(message, context)
            except Exception as error:
                self._count(error, context)
                code, words = codes.status(hidden(error, CALLER.get()))
            await context.abort(code, words)
            raise AssertionError  # abort does not return

        return answer

    @contextmanager
    def _holding(self, message: bytes) -> Iterator[None]:
        """Count a message while its request lives."""
        size = len(message)
        if self._held + size > self._limits.buffered_bytes:
            raise Overloaded("the server holds too many messages at once", got=f"{self._held} bytes",
                             expected=f"at most {self._limits.buffered_bytes} bytes",
                             hint="send the request again in a moment")  # fmt: skip
        self._held += size
        try:
            yield
        finally:
            self._held -= size


def _refuse(operation: str) -> _Unary:
    async def refuse(_: bytes, __: Any) -> bytes:
        raise NotOffered(operation)

    return refuse


def _within(request: InferRequest, seconds: float | None) -> InferRequest:
    """The request with the call's deadline as its ``timeout``, in microseconds, unless it names a shorter one."""
    if seconds is None:
        return request
    left = max(1, int(seconds * 1e6))
    stated = request.parameters.get("timeout", 0)
    if type(stated) is not int or 0 < stated <= left or stated < 0:  # what is wrong with it is the plane's to say
        return request
    return msgspec.structs.replace(request, parameters={**request.parameters, "timeout": left})
