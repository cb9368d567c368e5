"""The operations that describe, as a table: what each is asked with, and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from google.protobuf import json_format

from tailorbird.domain.errors import ModelNotFound, VersionNotFound
from tailorbird.service.rpc import messages, schema
from tailorbird.service.rpc.gate import CALLER
from tailorbird.serving.dataplane import DataPlane


class Described(msgspec.Struct, frozen=True):
    """An operation with one request and one response: parsed, answered, serialised."""

    request: Any
    """The message's class."""
    answer: Callable[[DataPlane, Any], Awaitable[Any]]
    """Takes the parsed request and returns the response message."""


async def _server_live(plane: DataPlane, _: Any) -> Any:
    return schema.ServerLiveResponse(live=plane.server_live())


async def _server_ready(plane: DataPlane, _: Any) -> Any:
    return schema.ServerReadyResponse(ready=plane.server_ready())


async def _model_ready(plane: DataPlane, request: Any) -> Any:
    """An unknown model is not ready, as Triton has it: clients wait for models that are still to come."""
    try:
        ready = plane.model_ready(*messages.model_and_version(request.name, request.version))
    except (ModelNotFound, VersionNotFound):
        ready = False
    return schema.ModelReadyResponse(ready=ready)


async def _server_metadata(plane: DataPlane, _: Any) -> Any:
    found = plane.server_metadata()
    return schema.ServerMetadataResponse(name=found.name, version=found.version, extensions=found.extensions)


async def _model_metadata(plane: DataPlane, request: Any) -> Any:
    return messages.metadata(plane.model_metadata(*messages.model_and_version(request.name, request.version)))


async def _model_config(plane: DataPlane, request: Any) -> Any:
    found = plane.model_config(*messages.model_and_version(request.name, request.version))
    return _filled(schema.ModelConfigResponse, {"config": found})


async def _model_statistics(plane: DataPlane, request: Any) -> Any:
    """Without a name of all models, as Triton has it."""
    about = messages.model_and_version(request.name, request.version) if request.name else ()
    accounts = [one for one in plane.model_statistics(*about) if CALLER.get().sees(one.name)]
    return _filled(schema.ModelStatisticsResponse, {"model_stats": accounts})


async def _repository_index(plane: DataPlane, request: Any) -> Any:
    entries = [one for one in plane.repository_index(ready=request.ready) if CALLER.get().sees(one.name)]
    return _filled(schema.RepositoryIndexResponse, {"models": entries})


async def _health(plane: DataPlane, request: Any) -> Any:
    """A service is the server, ours by its name, or a model; an unknown one is NOT_FOUND, as gRPC's document says."""
    if request.service in ("", schema.INFERENCE):
        ready = plane.server_ready()
    else:
        ready = plane.model_ready(*messages.model_and_version(request.service, ""))
    states = schema.HealthCheckResponse.ServingStatus
    return schema.HealthCheckResponse(status=states.Value("SERVING" if ready else "NOT_SERVING"))


INFERENCE = {
    "ServerLive": Described(schema.ServerLiveRequest, _server_live),
    "ServerReady": Described(schema.ServerReadyRequest, _server_ready),
    "ModelReady": Described(schema.ModelReadyRequest, _model_ready),
    "ServerMetadata": Described(schema.ServerMetadataRequest, _server_metadata),
    "ModelMetadata": Described(schema.ModelMetadataRequest, _model_metadata),
    "ModelConfig": Described(schema.ModelConfigRequest, _model_config),
    "ModelStatistics": Described(schema.ModelStatisticsRequest, _model_statistics),
    "RepositoryIndex": Described(schema.RepositoryIndexRequest, _repository_index),
}
"""By name in ``inference.GRPCInferenceService``. Another operation is a function above and a line here."""

HEALTH = {"Check": Described(schema.HealthCheckRequest, _health)}
"""By name in ``grpc.health.v1.Health``."""

NOT_OFFERED = (
    *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    *("TraceSetting", "LogSettings"),
)
"""Triton's other operations, which are answered with UNIMPLEMENTED and a sentence, whatever the request."""


def _filled(message: Any, found: dict[str, Any]) -> Any:
    """A message out of records whose fields have the message's names; enumerations by their values' names."""
    return json_format.ParseDict(msgspec.to_builtins(found), message())
