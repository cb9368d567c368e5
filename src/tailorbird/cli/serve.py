"""``tailorbird serve``: its flags, and the settings they become."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter

import tailorbird

_MODELS = Group("Models")
_CHANGES = Group("Changes")
_LISTENING = Group("Listening")
_GUARDING = Group("Doors")


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
    rebuild_stale: Annotated[bool, Parameter(negative="")] = False
    """At the start build again what this machine cannot load, from the build kit that its version keeps."""


@Parameter(name="*", group=_CHANGES)
@dataclass(frozen=True)
class Changes:
    """When models change while they are served."""

    model_control_mode: Literal["none", "explicit", "poll"] | None = None
    """Load at the start only, on request, or as the repository changes, which is the default for a repository."""
    load_model: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Explicit mode: a model to load at the start, may be repeated; * alone for all."""
    repository_poll_secs: float | None = None
    """Seconds between two looks at the repository; by default 2, and 15 for object storage."""
    keep_previous_secs: float = 60.0
    """How long a version that was live stays loaded for a rollback."""
    canary_weight: float = 0.0
    """Share of the requests for the version that the canary channel points at, from 0 to 1."""
    canary_channel: str = "canary"
    """The channel of the canary."""
    canary_slowdown: float = 1.2
    """A canary that takes so many times as long as the live version is stopped."""
    shadow_channel: str = ""
    """Send copies of the requests to the version that this channel points at."""
    shadow_share: float = 1.0
    """Share of the live version's requests that are copied to the shadow."""
    memory_budget: str | None = None
    """What all engines may take, as 4GiB; beyond it the least recently used are put away until they are asked for."""
    pin: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """A model that is never put away for that, may be repeated."""


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
    max_connections: int | None = None
    """HTTP connections at once, and as many of gRPC; by default thousands, or as many as the system allows."""
    access_log: Annotated[bool, Parameter(negative="")] = False
    """Write a line to the log for each request."""
    record: str = ""
    """Record traffic into this directory: arrivals, shapes and outcomes, never contents."""
    record_limit: str = "256MiB"
    """Size of the recording; the oldest goes."""
    otel: Annotated[bool, Parameter(negative="")] = False
    """Send traces by OpenTelemetry, as its environment variables say."""
    allow_client_shm: Annotated[bool, Parameter(negative="")] = False
    """Let local clients hand over tensors in system shared memory; an administrator registers it."""
    client_shm_user: Annotated[tuple[int, ...], Parameter(negative="")] = ()
    """A user's number whose shared memory may be registered besides the server's own, may be repeated."""


@Parameter(name="*", group=_GUARDING)
@dataclass(frozen=True)
class Guarding:
    """Who is let in, how connections are encrypted, and where the server is administered."""

    tokens: str = ""
    """Let in only whom this file names, as 'tailorbird token create' writes it."""
    open_health: Annotated[bool, Parameter(negative="")] = False
    """Tell live and ready without a token."""
    tls_cert: str = ""
    """Certificate in PEM, with those between it and the root: HTTPS, and TLS for gRPC."""
    tls_key: str = ""
    """Its private key."""
    tls_client_ca: str = ""
    """Let in only clients with a certificate by one of these authorities."""
    tls_client_name: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Of these only such with a name like this; may be given again."""
    admin: str = ""
    """A door for administration: PORT, HOST:PORT or unix:PATH; a port alone is this machine's only."""
    admin_on_public: Annotated[bool, Parameter(negative="")] = False
    """Administer on the public port, too."""


_MODELS_DEFAULT, _CHANGES_DEFAULT, _LISTENING_DEFAULT = Models(), Changes(), Listening()
_GUARDING_DEFAULT = Guarding()


def serve(
    source: str,
    *,
    models: Models = _MODELS_DEFAULT,
    changes: Changes = _CHANGES_DEFAULT,
    listening: Listening = _LISTENING_DEFAULT,
    guarding: Guarding = _GUARDING_DEFAULT,
) -> None:
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
        rebuild_stale=models.rebuild_stale,
        grpc_port=listening.grpc_port,
        metrics_port=listening.metrics_port,
        max_connections=listening.max_connections,
        access_log=listening.access_log,
        record=listening.record,
        record_limit=listening.record_limit,
        otel=listening.otel,
        allow_client_shm=listening.allow_client_shm,
        client_shm_user=listening.client_shm_user,
        **asdict(changes),
        **asdict(guarding),
        isolation=models.isolation,
        instances=models.instances,
        max_queue_delay_ms=models.max_queue_delay_ms,
        default_timeout_ms=models.default_timeout_ms,
        preserve_ordering=models.preserve_ordering,
        max_queue=models.max_queue,
    )
    _leave_what_hangs()


def _leave_what_hangs() -> None:
    """End here and now where an engine never came back; see :data:`tailorbird.serving.instance.left_behind`."""
    from tailorbird.service.observe import journal
    from tailorbird.serving.instance import left_behind

    if left_behind:
        journal.record("given up", level="warning", instances=", ".join(left_behind))
        os._exit(0)
