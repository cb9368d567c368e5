"""The operations that change what is served, as a table: what each is asked with, and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tailorbird.service.guard.tokens import Caller
from tailorbird.service.routes import Operation
from tailorbird.service.rpc import messages, schema
from tailorbird.service.web.admin import Administration


class Administered(msgspec.Struct, frozen=True):
    """An operation with one request and one response: parsed, answered, serialised."""

    operation: Operation
    request: Any
    """The message's class; it has a ``model_name``."""
    answer: Callable[[Administration, Any, Caller], Awaitable[Any]]
    """Takes the parsed request and returns the response message."""


async def _load(admin: Administration, request: Any, caller: Caller) -> Any:
    model, _ = messages.model_and_version(request.model_name, "")
    await admin.load(model, _parameters(request), caller)
    return schema.RepositoryModelLoadResponse()


async def _unload(admin: Administration, request: Any, caller: Caller) -> Any:
    model, _ = messages.model_and_version(request.model_name, "")
    await admin.unload(model, _parameters(request), caller)
    return schema.RepositoryModelUnloadResponse()


ADMINISTRATIVE = {
    "RepositoryModelLoad": Administered(Operation.MODEL_LOAD, schema.RepositoryModelLoadRequest, _load),
    "RepositoryModelUnload": Administered(Operation.MODEL_UNLOAD, schema.RepositoryModelUnloadRequest, _unload),
}
"""By name in ``inference.GRPCInferenceService``."""


def _parameters(request: Any) -> dict[str, None]:
    """Their names: their values are for nobody."""
    return dict.fromkeys(map(str, request.parameters))
