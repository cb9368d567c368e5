"""What can be set about a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.size import parse_size
from tailorbird.repository.layout import channel_name
from tailorbird.service.guard.options import Guarding, tls_files
from tailorbird.service.limits import Limits
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.instance import OUTSTANDING
from tailorbird.serving.recording.recorder import LIMIT_BYTES
from tailorbird.serving.rollout.control import Channels, ControlOptions, Mode
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.starting import HubOptions, Isolation

GRPC_PORT = 8001
"""Triton's."""


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a server listens, and what it serves how."""

    host: str = "127.0.0.1"
    """Reachable from this machine only."""
    port: int = 8000
    """Of HTTP; 0 takes any free one."""
    grpc_port: int | None = None
    """Of gRPC; 0 for none. None for 8001, if the extra ``grpc`` is installed and nobody else listens there."""
    metrics_port: int | None = None
    """Of ``/metrics`` alone; None to answer that path on the port of HTTP, 0 takes any free one."""
    access_log: bool = False
    """A line in the log for each request; never what is in it."""
    guarding: Guarding = Guarding()
    """Who is let in, how connections are encrypted, and where the server is administered."""
    record: str = ""
    """A folder to record traffic into, see :mod:`tailorbird.domain.trace`; empty for none."""
    record_limit: int = LIMIT_BYTES
    """Bytes that the recording may take; the oldest go."""
    otel: bool = False
    """Send traces by OpenTelemetry, or do not start. Without it, where its environment variables name an endpoint."""
    client_shm: bool = False
    """Take tensors from local clients' shared memory, and put some there."""
    client_shm_users: tuple[int, ...] = ()
    """Numbers of users whose shared memory may be named, besides the server's own."""
    limits: Limits = Limits()
    models: HubOptions = HubOptions()
    control: ControlOptions = ControlOptions()
    """When models change."""

    def __post_init__(self) -> None:
        for name, port in (("--grpc-port", self.grpc_port), ("--metrics-port", self.metrics_port)):
            if port is not None and not 0 <= port <= 65535:
                raise UsageError(f"{name} is no port", got=port, expected="0 to 65535")
        if self.client_shm and not (self.guarding.admin or self.guarding.admin_on_public):
            raise UsageError("clients' shared memory could be registered nowhere", got="--allow-client-shm alone",
                             expected="--admin or --admin-on-public beside it")  # fmt: skip


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, flat and in milliseconds, as people say it: the flags of ``tailorbird serve``."""

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    metrics_port: int | None = None
    channel: str = ""
    access_log: bool = False
    max_connections: int | None = None
    record: str = ""
    record_limit: str = "256MiB"
    otel: bool = False
    allow_client_shm: bool = False
    client_shm_user: Sequence[int] = ()
    model_control_mode: str | None = None
    load_model: Sequence[str] = ()
    repository_poll_secs: float | None = None
    keep_previous_secs: float = 60.0
    canary_weight: float = 0.0
    canary_channel: str = "canary"
    canary_slowdown: float = 1.2
    shadow_channel: str = ""
    shadow_share: float = 1.0
    memory_budget: str | None = None
    pin: Sequence[str] = ()
    tokens: str = ""
    open_health: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_client_name: Sequence[str] = ()
    admin: str = ""
    admin_on_public: bool = False
    allow_unsigned: bool = False
    isolation: str = Isolation.PROCESS
    instances: int | None = None
    max_queue_delay_ms: float | None = None
    default_timeout_ms: float | None = None
    preserve_ordering: bool = False
    max_queue: int | None = None


def options_of(**settings: Any) -> ServerOptions:
    """A server's options from settings by name.

    Raises:
        UsageError: a setting is unknown, or its value is wrong.
    """
    known = ServeSettings.__struct_fields__
    for name in settings:
        if name not in known:
            close = nearest(name, known)
            raise UsageError(f"unknown setting '{name}'", hint=f"did you mean '{close}'?" if close else None)
    said = ServeSettings(**settings)
    return ServerOptions(
        host=said.host,
        port=said.port,
        grpc_port=said.grpc_port,
        metrics_port=said.metrics_port,
        access_log=said.access_log,
        guarding=_guarding(said),
        limits=_limits(said.max_connections),
        record=said.record,
        record_limit=parse_size(said.record_limit),
        otel=said.otel,
        client_shm=said.allow_client_shm,
        client_shm_users=tuple(said.client_shm_user),
        models=_models(said),
        control=_control(said),
    )


def _control(said: ServeSettings) -> ControlOptions:
    return ControlOptions(
        mode=_mode(said.model_control_mode),
        load=tuple(said.load_model),
        poll_s=said.repository_poll_secs,
        keep_previous_s=said.keep_previous_secs,
        channels=Channels(
            live=_channel(said.channel),
            canary=_channel(said.canary_channel),
            weight=said.canary_weight,
            shadow=_channel(said.shadow_channel),
        ),
        rollout=RolloutOptions(slowdown=said.canary_slowdown, shadow_share=said.shadow_share),
        memory_budget=None if said.memory_budget is None else parse_size(said.memory_budget),
        pins=tuple(said.pin),
    )


def _mode(text: str | None) -> Mode | None:
    if text is None:
        return None
    try:
        return Mode(text)
    except ValueError:
        known = tuple(map(str, Mode))
        close = nearest(text, known)
        raise UsageError("no such model control mode", got=text, expected=", ".join(known),
                         hint=f"did you mean '{close}'?" if close else None) from None  # fmt: skip


def _channel(text: str) -> str:
    return channel_name(text) if text else ""


def _guarding(said: ServeSettings) -> Guarding:
    return Guarding(
        tokens=Path(said.tokens) if said.tokens else None,
        open_health=said.open_health,
        tls=tls_files(said.tls_cert, said.tls_key, said.tls_client_ca),
        client_names=tuple(said.tls_client_name),
        admin=said.admin,
        admin_on_public=said.admin_on_public,
    )


def _models(said: ServeSettings) -> HubOptions:
    return HubOptions(
        isolation=_isolation(said.isolation),
        instances=said.instances,
        batching=BatchOptions(
            max_queue_delay=_seconds("max_queue_delay_ms", said.max_queue_delay_ms, 0.0),
            default_timeout=_seconds("default_timeout_ms", said.default_timeout_ms, 0.001),
            preserve_ordering=said.preserve_ordering,
            most_requests=_count(said.max_queue),
        ),
        allow_unsigned=said.allow_unsigned,
    )


def _limits(connections: int | None) -> Limits:
    if connections is None:
        return Limits()
    if connections < 1:
        raise UsageError("max_connections is no number of connections", got=connections, expected="1 or more")
    return Limits(connections=connections, grpc_connections=connections)


def _isolation(text: str) -> Isolation:
    try:
        return Isolation(text)
    except ValueError:
        known = tuple(map(str, Isolation))
        close = nearest(text, known)
        raise UsageError("no such isolation", got=text, expected=" or ".join(known),
                         hint=f"did you mean '{close}'?" if close else None) from None  # fmt: skip


def _seconds(name: str, milliseconds: float | None, least: float) -> float | None:
    if milliseconds is None:
        return None
    if not least <= milliseconds < 1e12:
        raise UsageError(f"{name} is no time", got=milliseconds, expected=f"milliseconds, {least:g} or more")
    return milliseconds / 1e3


def _count(most: int | None) -> int:
    if most is None:
        return OUTSTANDING
    if most < 1:
        raise UsageError("max_queue is no number of requests", got=most, expected="1 or more")
    return most
