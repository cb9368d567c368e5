"""Paths of the protocol: a small exact table."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec

from tailorbird.service.faults import MethodNotAllowed, UnknownPath

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
    METRICS = "metrics"


POSTED = frozenset({Operation.MODEL_INFER, Operation.REPOSITORY_INDEX})


class Route(msgspec.Struct, frozen=True):
    """An operation and the model it is about, if it is about one."""

    operation: Operation
    model: str = ""
    version: int | None = None


_SERVER = {
    b"/": Route(Operation.STATUS_PAGE),  # for people; the protocol has no such path
    b"/v2": Route(Operation.SERVER_METADATA),
    b"/v2/health/live": Route(Operation.SERVER_LIVE),
    b"/v2/health/ready": Route(Operation.SERVER_READY),
    b"/v2/models/stats": Route(Operation.MODEL_STATISTICS),  # of all; a model of that name has its versions' paths
    b"/v2/repository/index": Route(Operation.REPOSITORY_INDEX),
    b"/metrics": Route(Operation.METRICS),
}
_OF_MODEL = {
    (): Operation.MODEL_METADATA,
    (b"ready",): Operation.MODEL_READY,
    (b"infer",): Operation.MODEL_INFER,
    (b"config",): Operation.MODEL_CONFIG,
    (b"stats",): Operation.MODEL_STATISTICS,
}


def route(method: str, path: bytes) -> Route:
    """The operation behind a method and a path.

    Args:
        method: as sent; HEAD counts as GET.
        path: as sent, still percent-encoded. Each segment is decoded once, after the path is split,
            so an encoded slash never makes a segment.

    Raises:
        UnknownPath: no operation, or a name or version outside the grammar.
        MethodNotAllowed: the operation has another method.
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
    if head or len(segments) < 3 or segments[:2] != [b"v2", b"models"]:
        return None
    return _match_model([unquote_to_bytes(segment) for segment in segments[2:]])


def _match_model(segments: list[bytes]) -> Route | None:
    """``MODEL[/versions/VERSION][/ready|/infer|/config|/stats]``."""
    name, *rest = segments
    version = None
    if len(rest) >= 2 and rest[0] == b"versions" and _VERSION.fullmatch(rest[1]):
        version, rest = int(rest[1]), rest[2:]
    operation = _OF_MODEL.get(tuple(rest))
    if operation is None or not _MODEL.fullmatch(name):
        return None
    return Route(operation, name.decode("ascii"), version)
