"""What can be set about a server."""

from __future__ import annotations

import msgspec

from tailorbird.domain.errors import UsageError
from tailorbird.service.limits import Limits
from tailorbird.serving.starting import HubOptions

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
