"""The listener: uvicorn, bound to an address, with limits on what precedes a body."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.service import wire

HEAD_BYTES = 64 << 10
"""Bytes of a request line, headers and trailers that may wait for their end."""
HEADERS = 100
DRAIN_SECONDS = 30
"""How long accepted requests may take after the server was told to stop; Triton's exit time-out."""
KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which would buffer a head of any size and answer a broken one in plain text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._finished_pieces = 0
        self._unfinished_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Bytes that finish neither a head nor a piece of a body are waiting in the parser: count them."""
        before = self._finished_pieces
        super().data_received(data)
        self._unfinished_bytes = self._unfinished_bytes + len(data) if before == self._finished_pieces else 0
        if self._unfinished_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"the request's head is too large: expected at most {HEAD_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """A head is whole; raising makes the parser give up, which is answered with 400."""
        self._finished_pieces += 1
        if len(self.headers) > HEADERS:
            raise ValueError("too many headers")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body went on its way."""
        self._finished_pieces += 1
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """The protocol's error body, then the end of the connection.

        When the bytes before the broken ones were whole requests, those are answered first, and the
        connection ends with the last of them: a 400 now would pass for the answer to the first.
        """
        cycle: RequestResponseCycle | None = self.cycle  # the latest request; None before the first
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            cycle.keep_alive = False
            return
        body = wire.encode_error(msg.rstrip("."))
        self.transport.write(_BAD_REQUEST % len(body) + body)
        self.transport.close()


class Listener(uvicorn.Server):
    """A server on a bound socket.

    Args:
        app: the ASGI callable.
        bound: from :func:`bind`; closed when the server ends.
        ready: called once, with the base URL, when requests are taken.
    """

    def __init__(self, app: Callable[..., Any], bound: socket.socket, ready: Callable[[str], None]) -> None:
        super().__init__(_config(app))
        self._bound = bound
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests, and say so."""
        await super().startup(sockets)
        self._ready(base_url(self._bound))

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


def base_url(bound: socket.socket) -> str:
    """``http://host:port`` with the real port."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


def _refused(host: str, port: int, error: OSError) -> TailorbirdError:
    hints = {
        errno.EADDRINUSE: "another process listens there: choose another --port, or 0 for any free one",
        errno.EACCES: "ports below 1024 need privileges: choose a larger --port",
        errno.EADDRNOTAVAIL: "choose an address of this machine with --host",
    }
    number = error.errno or 0
    return TailorbirdError(f"cannot listen on {host}:{port}", got=os.strerror(number), hint=hints.get(number))


def _config(app: Callable[..., Any]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="critical",
        backlog=_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
