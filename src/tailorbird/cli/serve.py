"""``tailorbird serve``: its flags, and the settings they become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter

import tailorbird

_MODELS = Group("Models")
_LISTENING = Group("Listening")


@Parameter(name="*", group=_MODELS)
@dataclass(frozen=True)
class Models:
    """How models are put into service."""

    channel: str = ""
    """Serve what this channel points at; without it production, or else the latest version."""
    isolation: Literal["process", "thread"] = "process"
    """Engines in processes of their own, or in threads of the server, which is faster and for one model."""
    instances: int | None = None
    """Of each model; by default as many as its build recommends."""
    max_queue_delay_ms: float | None = None
    """The longest wait for more rows; by default as long as it pays by the latency table."""
    default_timeout_ms: float | None = None
    """For requests that name no timeout; by default they wait as long as it takes."""
    preserve_ordering: Annotated[bool, Parameter(negative="")] = False
    """Answer requests of a model in the order in which they came."""
    max_queue: int | None = None
    """Requests of a model accepted and not yet answered."""
    allow_unsigned: Annotated[bool, Parameter(negative="")] = False
    """Local experiments: also load what has no signature by a trusted key."""


@Parameter(name="*", group=_LISTENING)
@dataclass(frozen=True)
class Listening:
    """Where the server listens, and what it says."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port of HTTP; 0 picks a free one."""
    grpc_port: int | None = None
    """Port of gRPC, 0 for none; by default 8001 where the extra grpc is installed."""
    metrics_port: int | None = None
    """Serve /metrics on a port of its own instead of the port of HTTP."""
    access_log: Annotated[bool, Parameter(negative="")] = False
    """Write a line to the log for each request."""


_MODELS_DEFAULT, _LISTENING_DEFAULT = Models(), Listening()


def serve(source: str, *, models: Models = _MODELS_DEFAULT, listening: Listening = _LISTENING_DEFAULT) -> None:
    """Serve a repository or a bundle over the Open Inference Protocol (HTTP and gRPC).

    Args:
        source: a repository, as a directory or s3://bucket/prefix; or a .engine file.
    """
    tailorbird.serve(
        source,
        host=listening.host,
        port=listening.port,
        channel=models.channel,
        allow_unsigned=models.allow_unsigned,
        grpc_port=listening.grpc_port,
        metrics_port=listening.metrics_port,
        access_log=listening.access_log,
        isolation=models.isolation,
        instances=models.instances,
        max_queue_delay_ms=models.max_queue_delay_ms,
        default_timeout_ms=models.default_timeout_ms,
        preserve_ordering=models.preserve_ordering,
        max_queue=models.max_queue,
    )
