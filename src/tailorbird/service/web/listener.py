"""The listener: uvicorn, bound to an address, and what listens beside it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import uvicorn

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.service.guard.tls import Tls
from tailorbird.service.limits import Limits
from tailorbird.service.web.connection import Connection
from tailorbird.service.web.direct import DirectConnection
from tailorbird.service.web.heads import Heads

DRAIN_SECONDS = 30
"""How long accepted requests may take after the server was told to stop; Triton's exit time-out."""
HANDSHAKE_SECONDS = 10.0
"""How long a TLS handshake may take; fewer where the bytes of a head have less time than that."""
ARRIVAL_SECONDS = 2.0
"""How long after the server was told to stop a request may go on arriving; then the client may send it elsewhere."""
_BACKLOG = 2048
_TICKS_PER_SECOND = 10


class Beside(Protocol):
    """What else listens, in the same event loop."""

    async def start(self) -> None:
        """Bind the port and take requests; raises :class:`TailorbirdError`."""

    async def drain(self, grace: float) -> None:
        """Take nothing new, answer what was accepted within so many seconds, and close the port."""


class Listener(uvicorn.Server):
    """A server on a bound socket.

    Args:
        app: the ASGI callable.
        bound: from :func:`bind`; closed when the server ends.
        ready: called once, with the base URL, when requests are taken.
        beside: what else listens; started before ``ready`` is called, and drained side by side.
        limits: how long clients may take.
        tls: encrypts every connection; None leaves them in the clear.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        bound: socket.socket,
        ready: Callable[[str], None] = lambda _: None,
        *,
        beside: Sequence[Beside] = (),
        limits: Limits | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._limits = limits = limits or Limits()
        super().__init__(_config(app, limits))
        self._bound = bound
        self._tls = tls
        self._ready = ready
        self._beside = beside
        self._look_every = max(1, round(_TICKS_PER_SECOND * min(2.0, limits.read_seconds / 5)))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 # uvicorn's
        """Begin to take requests, and say so."""
        for one in self._beside:
            await one.start()
        await self._listen()
        self._ready(base_url(self._bound, tls=self._tls is not None))

    async def _listen(self) -> None:
        """uvicorn's, but for handshakes: they may take as long as they like there, and are as many as come."""
        protocol: Any = self.config.http_protocol_class
        connection = partial(
            protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        tls: dict[str, Any] = {}
        if self._tls is not None:
            seconds = min(HANDSHAKE_SECONDS, self._limits.read_seconds)
            tls = {"ssl": self._tls.context(self._has_room), "ssl_handshake_timeout": seconds}
        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(connection, sock=self._bound, backlog=_BACKLOG, **tls)]
        self.started = True

    def _has_room(self, handshakes: int) -> bool:
        return len(self.server_state.connections) + handshakes < self._limits.connections

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; now and then clients that take too long are looked for."""
        if counter % self._look_every == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, and return when what was accepted is answered."""
        looking = asyncio.create_task(self._keep_looking())
        try:
            await asyncio.gather(super().shutdown(sockets), *(one.drain(DRAIN_SECONDS) for one in self._beside))
        finally:
            looking.cancel()

    async def _keep_looking(self) -> None:
        """Nothing ticks while uvicorn drains: it would wait to the end for what never comes."""
        loop = asyncio.get_running_loop()
        late = loop.time() + ARRIVAL_SECONDS
        while True:
            await asyncio.sleep(1 / _TICKS_PER_SECOND)
            now = loop.time()
            for connection in self._connections():
                connection.check(now)
                if now > late:
                    connection.give_up()

    def _connections(self) -> list[Connection]:
        return [one for one in self.server_state.connections if isinstance(one, Connection)]

    async def start(self) -> None:
        """Listen in the loop that runs, beside another listener."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup([self._bound])

    async def drain(self, grace: float) -> None:
        """The end of :meth:`start`; after ``grace`` seconds without regard to what is not answered."""
        self.config.timeout_graceful_shutdown = round(grace)
        await self.shutdown([self._bound])

    def serve_until_told(self) -> None:
        """Blocks until SIGTERM, SIGINT or ``should_exit``; then accepted requests are answered first."""
        self.run(sockets=[self._bound])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: a name or an address, IPv4 or IPv6.
        port: 0 takes any free one.

    Raises:
        UsageError: the host is no address, or the port is no port.
        TailorbirdError: the port is taken, or not allowed.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"cannot listen on {host}:{port}", got="no such port", expected="0 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"cannot listen on {host}:{port}", got=error, expected="a host name or an address") from None
    except OSError as error:
        raise _refused(host, port, error) from None


def base_url(bound: socket.socket, *, tls: bool = False) -> str:
    """``http://host:port`` with the real port, ``https`` where TLS is spoken; ``unix:PATH`` of a socket file."""
    if bound.family == socket.AF_UNIX:
        return f"unix:{bound.getsockname()}"
    scheme = "https" if tls else "http"
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


def _refused(host: str, port: int, error: OSError) -> TailorbirdError:
    hints = {
        errno.EADDRINUSE: "another process listens there: choose another --port, or 0 for any free one",
        errno.EACCES: "ports below 1024 need privileges: choose a larger --port",
        errno.EADDRNOTAVAIL: "choose an address of this machine with --host",
    }
    number = error.errno or 0
    return TailorbirdError(f"cannot listen on {host}:{port}", got=os.strerror(number), hint=hints.get(number))


def _config(app: Callable[..., Any], limits: Limits) -> uvicorn.Config:
    connection: Any = partial(
        DirectConnection, limits=limits, heads=Heads()
    )  # uvicorn calls it, and asks no more of it
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="critical",
        backlog=_BACKLOG,
        timeout_keep_alive=round(limits.idle_seconds),
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
