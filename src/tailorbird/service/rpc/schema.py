"""The protocol's messages, as ``make proto`` compiled them.

They live in a descriptor pool of their own: the official client defines messages of the same names in
protobuf's default pool, and a program may well import both. For the same reason there is no generated
module, which would know the default pool only, and would tie the installed protobuf to its compiler's version.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
COMPILED = "protocol.binpb"
"""A serialised ``FileDescriptorSet``."""


def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    compiled = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath(COMPILED).read_bytes())
    for file in compiled.file:
        pool.Add(file)
    return pool


POOL = _pool()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


ServerLiveRequest = _message("inference.ServerLiveRequest")
ServerLiveResponse = _message("inference.ServerLiveResponse")
ServerReadyRequest = _message("inference.ServerReadyRequest")
ServerReadyResponse = _message("inference.ServerReadyResponse")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ServerMetadataRequest = _message("inference.ServerMetadataRequest")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
ModelInferRequest = _message("inference.ModelInferRequest")
ModelInferResponse = _message("inference.ModelInferResponse")
ModelStreamInferResponse = _message("inference.ModelStreamInferResponse")
ModelConfigRequest = _message("inference.ModelConfigRequest")
ModelConfigResponse = _message("inference.ModelConfigResponse")
ModelStatisticsRequest = _message("inference.ModelStatisticsRequest")
ModelStatisticsResponse = _message("inference.ModelStatisticsResponse")
RepositoryIndexRequest = _message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = _message("inference.RepositoryIndexResponse")
RepositoryModelLoadRequest = _message("inference.RepositoryModelLoadRequest")
RepositoryModelLoadResponse = _message("inference.RepositoryModelLoadResponse")
RepositoryModelUnloadRequest = _message("inference.RepositoryModelUnloadRequest")
RepositoryModelUnloadResponse = _message("inference.RepositoryModelUnloadResponse")
SystemSharedMemoryStatusRequest = _message("inference.SystemSharedMemoryStatusRequest")
SystemSharedMemoryStatusResponse = _message("inference.SystemSharedMemoryStatusResponse")
SystemSharedMemoryRegisterRequest = _message("inference.SystemSharedMemoryRegisterRequest")
SystemSharedMemoryRegisterResponse = _message("inference.SystemSharedMemoryRegisterResponse")
SystemSharedMemoryUnregisterRequest = _message("inference.SystemSharedMemoryUnregisterRequest")
SystemSharedMemoryUnregisterResponse = _message("inference.SystemSharedMemoryUnregisterResponse")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
