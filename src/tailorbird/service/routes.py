"""Paths of the protocol: a small exact table."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec

from tailorbird.service.faults import MethodNotAllowed, NotOffered, UnknownPath

_MODEL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(rb"[0-9]{1,18}")
_PATH_LENGTH = 1024


class Operation(StrEnum):
    """What a path asks for."""

    STATUS_PAGE = "status page"
    SERVER_METADATA = "server metadata"
    SERVER_LIVE = "server live"
    SERVER_READY = "server ready"
    MODEL_METADATA = "model metadata"
    MODEL_READY = "model ready"
    MODEL_INFER = "model infer"
    MODEL_CONFIG = "model config"
    MODEL_STATISTICS = "model statistics"
    REPOSITORY_INDEX = "repository index"
    MODEL_LOAD = "model load"
    MODEL_UNLOAD = "model unload"
    ROLLOUTS = "rollouts"
    SHARED_MEMORY_STATUS = "shared memory status"
    SHARED_MEMORY_REGISTER = "shared memory register"
    SHARED_MEMORY_UNREGISTER = "shared memory unregister"
    METRICS = "metrics"


POSTED = frozenset(
    {
        Operation.MODEL_INFER,
        Operation.REPOSITORY_INDEX,
        Operation.MODEL_LOAD,
        Operation.MODEL_UNLOAD,
        Operation.SHARED_MEMORY_REGISTER,
        Operation.SHARED_MEMORY_UNREGISTER,
    }
)


class Route(msgspec.Struct, frozen=True):
    """An operation and the model it is about, if it is about one."""

    operation: Operation
    model: str = ""
    version: int | None = None
    region: str = ""
    """The region of shared memory it is about, unchecked; empty for none or all."""


_SERVER = {
    b"/": Route(Operation.STATUS_PAGE),  # for people; the protocol has no such path
    b"/v2": Route(Operation.SERVER_METADATA),
    b"/v2/health/live": Route(Operation.SERVER_LIVE),
    b"/v2/health/ready": Route(Operation.SERVER_READY),
    b"/v2/models/stats": Route(Operation.MODEL_STATISTICS),  # of all; a model of that name has its versions' paths
    b"/v2/repository/index": Route(Operation.REPOSITORY_INDEX),
    b"/v2/rollouts": Route(Operation.ROLLOUTS),
    b"/metrics": Route(Operation.METRICS),
}
_OF_MODEL = {
    (): Operation.MODEL_METADATA,
    (b"ready",): Operation.MODEL_READY,
    (b"infer",): Operation.MODEL_INFER,
    (b"config",): Operation.MODEL_CONFIG,
    (b"stats",): Operation.MODEL_STATISTICS,
}
_OF_REGION = {
    b"status": Operation.SHARED_MEMORY_STATUS,
    b"register": Operation.SHARED_MEMORY_REGISTER,
    b"unregister": Operation.SHARED_MEMORY_UNREGISTER,
}
_NOT_OFFERED = {b"cudasharedmemory": "CUDA shared memory", b"trace": "trace setting", b"logging": "log settings"}
"""Triton's other operations, by what follows ``/v2/``, whatever the method."""
_NOT_OFFERED_OF_MODEL = {
    (b"trace", b"setting"): "trace setting",
    (b"generate",): "generate",
    (b"generate_stream",): "generate stream",
}
_IN_REPOSITORY = {b"load": Operation.MODEL_LOAD, b"unload": Operation.MODEL_UNLOAD}


def route(method: str, path: bytes) -> Route:
    """The operation behind a method and a path.

    Args:
        method: as sent; HEAD counts as GET.
        path: as sent, still percent-encoded. Each segment is decoded once, after the path is split,
            so an encoded slash never makes a segment.

    Raises:
        UnknownPath: no operation, or a name or version outside the grammar.
        MethodNotAllowed: the operation has another method.
        NotOffered: it is an operation of Triton's that this server has not.
    """
    found = _match(path) if len(path) <= _PATH_LENGTH else None
    if found is None:
        raise UnknownPath(path.decode("ascii", "replace"))
    posted = found.operation in POSTED
    if method not in (("POST",) if posted else ("GET", "HEAD")):
        raise MethodNotAllowed(method, "POST" if posted else "GET, HEAD")
    return found


@lru_cache(maxsize=1024)
def _match(path: bytes) -> Route | None:
    if path in _SERVER:
        return _SERVER[path]
    head, *segments = path.split(b"/")
    if not head and len(segments) > 1 and segments[0] == b"v2" and segments[1] in _NOT_OFFERED:
        raise NotOffered(_NOT_OFFERED[segments[1]])
    if head or len(segments) < 3:
        return None
    if segments[:2] == [b"v2", b"models"]:
        return _match_model([unquote_to_bytes(segment) for segment in segments[2:]])
    if segments[:3] == [b"v2", b"repository", b"models"]:
        return _match_repository([unquote_to_bytes(segment) for segment in segments[3:]])
    if segments[:2] == [b"v2", b"systemsharedmemory"]:
        return _match_region([unquote_to_bytes(segment) for segment in segments[2:]])
    return None


def _match_model(segments: list[bytes]) -> Route | None:
    """``MODEL[/versions/VERSION][/ready|/infer|/config|/stats]``."""
    name, *rest = segments
    version = None
    if len(rest) >= 2 and rest[0] == b"versions" and _VERSION.fullmatch(rest[1]):
        version, rest = int(rest[1]), rest[2:]
    if tuple(rest) in _NOT_OFFERED_OF_MODEL and _MODEL.fullmatch(name):
        raise NotOffered(_NOT_OFFERED_OF_MODEL[tuple(rest)])
    operation = _OF_MODEL.get(tuple(rest))
    if operation is None or not _MODEL.fullmatch(name):
        return None
    return Route(operation, name.decode("ascii"), version)


def _match_region(segments: list[bytes]) -> Route | None:
    """``[region/NAME/]status``, ``register`` or ``unregister``; the name is judged by whoever knows regions."""
    *region, last = segments
    if region and (len(region) != 2 or region[0] != b"region"):
        return None
    if last not in _OF_REGION or (last == b"register" and not region):
        return None
    return Route(_OF_REGION[last], region=region[1].decode("utf-8", "replace") if region else "")


def _match_repository(segments: list[bytes]) -> Route | None:
    """``MODEL/load`` or ``MODEL/unload``."""
    if len(segments) != 2 or segments[1] not in _IN_REPOSITORY or not _MODEL.fullmatch(segments[0]):
        return None
    return Route(_IN_REPOSITORY[segments[1]], segments[0].decode("ascii"))
