"""The gRPC listener: a server in the running event loop, bound to an address, with limits on what arrives."""

from __future__ import annotations

from typing import Any

import grpc

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.service.limits import Limits
from tailorbird.service.observe.witness import Witnesses
from tailorbird.service.rpc.gate import Gate
from tailorbird.service.rpc.pace import in_time
from tailorbird.service.rpc.servicer import Servicer
from tailorbird.service.rpc.tls import credentials
from tailorbird.service.web.admin import Entrance
from tailorbird.service.web.listener import HANDSHAKE_SECONDS
from tailorbird.serving.dataplane import DataPlane

FRAMING_BYTES = 1 << 20
"""What a message may be longer than an HTTP body: names, shapes and framing around the tensors."""
_KEEP_ALIVE_MS = 60_000
_KEEP_ALIVE_TIMEOUT_MS = 20_000


class GrpcListener:
    """The protocol over gRPC on one port, in the event loop of whoever starts it.

    Args:
        plane: the operations.
        host: a name or an address, IPv4 or IPv6.
        port: 0 takes any free one.
        limits: what a request may be.
        witnesses: are told of each inference request.
        entrance: who is let in, how, and whether for administration, too.
    """

    def __init__(
        self,
        plane: DataPlane,
        host: str,
        port: int,
        limits: Limits | None = None,
        *,
        witnesses: Witnesses | None = None,
        entrance: Entrance | None = None,
    ) -> None:
        self._plane = plane
        self._host = host
        self._asked = port
        self._limits = limits or Limits()
        self._witnesses = witnesses
        self._entrance = entrance or Entrance()
        self._server: Any = None
        self._servicer: Servicer | None = None
        self.port = 0
        """The real one, once started."""

    @property
    def address(self) -> str:
        """``host:port``, as gRPC's clients take it; the port is the real one once started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port or self._asked}"

    async def start(self) -> None:
        """Bind the port and take calls.

        Raises:
            UsageError: the port is no port.
            TailorbirdError: the address cannot be bound.
        """
        if not 0 <= self._asked <= 65535:
            raise UsageError(f"cannot listen on {self.address}", got="no such port", expected="0 to 65535")
        guard = self._entrance.guard
        self._servicer = Servicer(self._plane, self._limits, witnesses=self._witnesses, entrance=self._entrance)
        self._server = grpc.aio.server(
            options=_options(self._limits),
            interceptors=() if guard is None else (Gate(guard),),
            maximum_concurrent_rpcs=self._limits.grpc_calls,
        )
        for service, handlers in self._servicer.handlers().items():
            paced = in_time(handlers, self._limits.read_seconds)
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, paced),))
        self.port = self._bind()
        await self._server.start()

    async def drain(self, grace: float) -> None:
        """Take no new calls, answer those accepted, and close the port.

        Args:
            grace: seconds after which calls that still run are cancelled.
        """
        if self._server is None or self._servicer is None:
            return
        self._servicer.drain()
        await self._server.stop(grace)
        self._server = self._servicer = None

    def _bind(self) -> int:
        try:
            if self._entrance.tls is None:
                return int(self._server.add_insecure_port(self.address))
            return int(self._server.add_secure_port(self.address, credentials(self._entrance.tls)))
        except RuntimeError:
            raise TailorbirdError(
                f"cannot listen for gRPC on {self.address}", got="the address could not be bound",
                hint="another process may listen there: choose another port, or 0 for any free one",
            ) from None  # fmt: skip


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.body_bytes + FRAMING_BYTES),  # gRPC holds it after gunzipping, too
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # two servers on one port would each get some of the calls
        ("grpc.keepalive_time_ms", _KEEP_ALIVE_MS),  # a peer that is gone without a word is noticed
        ("grpc.keepalive_timeout_ms", _KEEP_ALIVE_TIMEOUT_MS),
        ("grpc.server_handshake_timeout_ms", round(1000 * min(HANDSHAKE_SECONDS, limits.read_seconds))),
        ("grpc.max_allowed_incoming_connections", limits.grpc_connections),
    ]
