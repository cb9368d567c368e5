"""What can be set about a server."""

from __future__ import annotations

from typing import Any

import msgspec

from tailorbird.domain.errors import UsageError, nearest
from tailorbird.service.limits import Limits
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.instance import OUTSTANDING
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
    channel: str = ""
    """Which version of each model of a repository; see :func:`tailorbird.serving.loading.load_hub`."""
    access_log: bool = False
    """A line in the log for each request; never what is in it."""
    limits: Limits = Limits()
    models: HubOptions = HubOptions()

    def __post_init__(self) -> None:
        for name, port in (("--grpc-port", self.grpc_port), ("--metrics-port", self.metrics_port)):
            if port is not None and not 0 <= port <= 65535:
                raise UsageError(f"{name} is no port", got=port, expected="0 to 65535")


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, flat and in milliseconds, as people say it: the flags of ``tailorbird serve``."""

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    metrics_port: int | None = None
    channel: str = ""
    access_log: bool = False
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
        channel=said.channel,
        access_log=said.access_log,
        models=_models(said),
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
