"""The guard before gRPC: every call passes it before its first message is read, whether its method exists or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc

from tailorbird.service.faults import Forbidden, Refused, Unauthenticated
from tailorbird.service.guard.guard import ANYBODY, Guard
from tailorbird.service.guard.tokens import EVERYBODY, Caller
from tailorbird.service.routes import Operation
from tailorbird.service.rpc import codes, schema

_Metadata = tuple[tuple[str, str | bytes], ...] | None
_Proof = tuple[_Metadata, tuple[str, ...]]

CALLER: ContextVar[Caller] = ContextVar("tailorbird_caller", default=EVERYBODY)
"""Who made the call that is being answered. gRPC runs each call, from here on, in a context of its own."""

_PROOF: ContextVar[_Proof] = ContextVar("tailorbird_proof")

_INFERENCE: dict[str, Operation | None] = {
    "ServerLive": Operation.SERVER_LIVE,
    "ServerReady": Operation.SERVER_READY,
    "ServerMetadata": Operation.SERVER_METADATA,
    "ModelReady": Operation.MODEL_READY,
    "ModelMetadata": Operation.MODEL_METADATA,
    "ModelConfig": Operation.MODEL_CONFIG,
    "ModelStatistics": Operation.MODEL_STATISTICS,
    "ModelInfer": Operation.MODEL_INFER,
    "ModelStreamInfer": Operation.MODEL_INFER,
    "RepositoryIndex": Operation.REPOSITORY_INDEX,
    "RepositoryModelLoad": Operation.MODEL_LOAD,
    "RepositoryModelUnload": Operation.MODEL_UNLOAD,
    "SystemSharedMemoryStatus": Operation.SHARED_MEMORY_STATUS,
    "SystemSharedMemoryRegister": Operation.SHARED_MEMORY_REGISTER,
    "SystemSharedMemoryUnregister": Operation.SHARED_MEMORY_UNREGISTER,
    "CudaSharedMemoryStatus": None,
    "CudaSharedMemoryRegister": None,
    "CudaSharedMemoryUnregister": None,
    "TraceSetting": None,
    "LogSettings": None,
}
METHODS: dict[str, Operation | None] = {
    **{f"/{schema.INFERENCE}/{name}": operation for name, operation in _INFERENCE.items()},
    f"/{schema.HEALTH}/Check": Operation.SERVER_READY,
}
"""What each method is for; None for those that tell every caller that they are not offered."""

_Handler = Any
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]]


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc] # gRPC counts as untyped
    """Lets calls in, or refuses them with UNAUTHENTICATED or PERMISSION_DENIED.

    Args:
        guard: of this door.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_service(self, continuation: _Continuation, details: grpc.HandlerCallDetails) -> _Handler:
        """What answers a call; None where there is no such method."""
        handler = await continuation(details)
        if self._guard.asks_certificates:  # only the call's context knows them
            return _looking_first(partial(self._let_in, details, handler), self._guard, handler)
        try:
            self._let_in(details, handler, ())
        except Refused as error:
            return grpc.stream_stream_rpc_method_handler(partial(_refuse, self._guard, error))
        return handler

    def _let_in(self, details: grpc.HandlerCallDetails, handler: _Handler, names: tuple[str, ...]) -> None:
        operation = METHODS.get(details.method)
        if self._guard.is_open(operation):
            CALLER.set(ANYBODY)
            return
        caller = self._guard.known(_credential(details.invocation_metadata), names)
        if operation is not None:
            self._guard.allow(caller, operation)
        elif handler is not None and details.method not in METHODS:
            raise Forbidden("the operation is not allowed", why="no scope")
        CALLER.set(caller)
        _PROOF.set((details.invocation_metadata, names))


def still_known(guard: Guard) -> None:
    """Refuse the next message of a stream whose token has been revoked, or has expired, since the stream began.

    Raises:
        Unauthenticated: it has.
    """
    metadata, names = _PROOF.get()
    CALLER.set(guard.known(_credential(metadata), names))


def model_of(method: str, request: Any) -> tuple[Operation, str] | None:
    """What a describing call is for and which model it is about; None where it is about none."""
    if method == "Check":
        about = request.service not in ("", schema.INFERENCE)
        return (Operation.MODEL_READY, request.service) if about else None
    operation = _INFERENCE[method]
    name = getattr(request, "name", "")
    return (operation, name) if operation is not None and name else None


def model_allowed(guard: Guard, operation: Operation, model: str) -> None:
    """Refuse a model that the caller is not let in for; called when a message has been read, before any look-up.

    Raises:
        Forbidden: the token is not for it.
        Unauthenticated: the caller was let in without a token, for what is open to all.
    """
    caller = CALLER.get()
    if caller is ANYBODY:
        raise Unauthenticated("no token", offered=False)
    guard.allow(caller, operation, model)


def _looking_first(let_in: Callable[[tuple[str, ...]], None], guard: Guard, handler: _Handler) -> _Handler:
    """A handler that looks at the client's certificate before the real one reads a message."""

    async def look(messages: Any, context: Any) -> Any:
        try:
            let_in(_names(context))
        except Refused as error:
            await _refuse(guard, error, messages, context)
        if handler is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        if handler.response_streaming:
            return await handler.stream_stream(messages, context)
        return await handler.stream_unary(messages, context)

    if handler is None or handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(look)
    return grpc.stream_unary_rpc_method_handler(look)


async def _refuse(guard: Guard, error: Refused, _: Any, context: Any) -> None:
    """The call's end, before any of its messages is read."""
    guard.count(error, "grpc", context.peer())
    await context.abort(*codes.status(error))


def _credential(metadata: _Metadata) -> str | None:
    found = [value for key, value in metadata or () if key == "authorization"]
    if len(found) > 1:
        raise Unauthenticated("two authorizations", offered=True)
    return str(found[0]) if found else None


def _names(context: Any) -> tuple[str, ...]:
    """Those in the client's certificate, the common name first."""
    known = context.auth_context()
    found = (*known.get("x509_common_name", ()), *known.get("x509_subject_alternative_name", ()))
    return tuple(name.decode("utf-8", "replace") for name in found)
