"""Clients' shared memory over gRPC, as a table: what each operation is asked with, and what answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tailorbird.service.routes import Operation
from tailorbird.service.rpc import schema
from tailorbird.serving.shared_memory import Regions


class Sharing(msgspec.Struct, frozen=True):
    """An operation with one request and one response: parsed, answered, serialised."""

    operation: Operation
    """What it is, to the guard."""
    request: Any
    """The message's class."""
    answer: Callable[[Regions, Any], Any]
    """Takes the parsed request and returns the response message."""


def _status(regions: Regions, request: Any) -> Any:
    found = {one.name: msgspec.to_builtins(one) for one in regions.status(request.name)}
    return schema.SystemSharedMemoryStatusResponse(regions=found)


def _register(regions: Regions, request: Any) -> Any:
    regions.register(request.name, request.key, request.offset, request.byte_size)
    return schema.SystemSharedMemoryRegisterResponse()


def _unregister(regions: Regions, request: Any) -> Any:
    regions.unregister(request.name)
    return schema.SystemSharedMemoryUnregisterResponse()


SHARED_MEMORY = {
    "SystemSharedMemoryStatus": Sharing(
        Operation.SHARED_MEMORY_STATUS, schema.SystemSharedMemoryStatusRequest, _status
    ),
    "SystemSharedMemoryRegister": Sharing(
        Operation.SHARED_MEMORY_REGISTER, schema.SystemSharedMemoryRegisterRequest, _register
    ),
    "SystemSharedMemoryUnregister": Sharing(
        Operation.SHARED_MEMORY_UNREGISTER, schema.SystemSharedMemoryUnregisterRequest, _unregister
    ),
}
"""By name in ``inference.GRPCInferenceService``."""
