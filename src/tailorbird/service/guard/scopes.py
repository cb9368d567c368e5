"""Scopes: which of them an operation needs, and which operations a door offers. What no table names is refused."""

from __future__ import annotations

from enum import StrEnum

from tailorbird.service.routes import Operation


class Scope(StrEnum):
    """What a token may be used for. None of them holds another: a monitor need not run models, nor a client unload."""

    READ = "read"
    """Metadata, statistics, metrics, the status page."""
    INFER = "infer"
    """Requests to models, and what a client must know to send them."""
    ADMIN = "admin"
    """Loading and unloading, rollouts, shared memory."""


ALL = frozenset(Scope)
_CLIENTS = frozenset({Scope.READ, Scope.INFER})
_WATCHERS = frozenset({Scope.READ, Scope.ADMIN})
_READ, _INFER, _ADMIN = (frozenset({scope}) for scope in (Scope.READ, Scope.INFER, Scope.ADMIN))

SCOPES: dict[Operation, frozenset[Scope]] = {
    Operation.SERVER_LIVE: ALL,
    Operation.SERVER_READY: ALL,
    Operation.SERVER_METADATA: ALL,
    Operation.MODEL_READY: ALL,
    Operation.MODEL_METADATA: _CLIENTS,
    Operation.MODEL_CONFIG: _CLIENTS,
    Operation.MODEL_INFER: _INFER,
    Operation.MODEL_STATISTICS: _READ,
    Operation.METRICS: _READ,
    Operation.STATUS_PAGE: _READ,
    Operation.REPOSITORY_INDEX: _WATCHERS,
    Operation.ROLLOUTS: _WATCHERS,
    Operation.MODEL_LOAD: _ADMIN,
    Operation.MODEL_UNLOAD: _ADMIN,
    Operation.SHARED_MEMORY_STATUS: _ADMIN,
    Operation.SHARED_MEMORY_REGISTER: _ADMIN,
    Operation.SHARED_MEMORY_UNREGISTER: _ADMIN,
}
"""Any one of the scopes is enough. An operation that is missing here is refused to everybody."""

HEALTH = frozenset({Operation.SERVER_LIVE, Operation.SERVER_READY})
"""What ``--open-health`` answers without a token."""

_SHARED_MEMORY = frozenset(
    {Operation.SHARED_MEMORY_STATUS, Operation.SHARED_MEMORY_REGISTER, Operation.SHARED_MEMORY_UNREGISTER}
)

OF_ALL_MODELS = frozenset({Operation.METRICS, Operation.STATUS_PAGE}) | _SHARED_MEMORY
"""What is about every model at once, and so is not for a token of some."""

ADMINISTRATION = frozenset(
    {
        Operation.ROLLOUTS,
        Operation.MODEL_LOAD,
        Operation.MODEL_UNLOAD,
        Operation.SHARED_MEMORY_STATUS,
        Operation.SHARED_MEMORY_REGISTER,
        Operation.SHARED_MEMORY_UNREGISTER,
    }
)
"""What the public door does not offer unless it is told to. Shared memory has a switch of its own."""


class Door(StrEnum):
    """Where a request comes in."""

    PUBLIC = "public"
    PUBLIC_WITH_ADMIN = "public, with administration"
    ADMIN = "admin"
    METRICS = "metrics"


OFFERED: dict[Door, frozenset[Operation]] = {
    Door.PUBLIC: frozenset(SCOPES) - ADMINISTRATION,
    Door.PUBLIC_WITH_ADMIN: frozenset(SCOPES),
    Door.ADMIN: frozenset(SCOPES) - {Operation.MODEL_INFER},
    Door.METRICS: frozenset({Operation.METRICS}),
}
