"""Connections: HTTP/1.1 kept alive, one request at a time on each, parsed by httptools."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httptools

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.files import reason
from tailorbird.load.client import ANSWER_SECONDS, Answer


class Connection(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[Answer] | None = None
        self._parts: list[bytes] = []
        self._transport: Any = None
        self.usable = True

    async def ask(self, request: bytes) -> Answer:
        """Send one whole request; raises :class:`ConnectionError` when the server hangs up."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Hang up."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()  # nothing is left to be said, and over TLS a farewell would take its time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the server does not speak HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """Called by asyncio."""
        self.usable = False
        self._fail(ConnectionError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        waiting, parts, status = self._waiting, self._parts, self._parser.get_status_code()
        self.usable = self.usable and self._parser.should_keep_alive()
        self._waiting, self._parts, self._parser = None, [], httptools.HttpResponseParser(self)
        if waiting is not None and not waiting.done():
            waiting.set_result(Answer(status, b"".join(parts)))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)


class Pool:
    """Connections to one server, opened as they are needed.

    Args:
        url: ``http://host:port``, or ``https://host:port``.
        most: connections open at once; whoever needs another waits.
        headers: sent with every request, as authorisation.
        seconds: for one answer, from when its request is sent.
        ca: a file of certificates that the server's has to be signed by; by default those that the system trusts.
    """

    def __init__(
        self,
        url: str,
        most: int,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
        ca: str = "",
    ) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("not a server's address", got=url, expected="http://host:port")
        self._host, self._port = parts.hostname, _port(parts, url)
        self._tls = _trusting(ca) if parts.scheme == "https" else None
        self._limit = seconds
        self._head = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(most)

    def request(self, method: str, path: str, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> bytes:
        """The bytes of a request, to be made once and sent often."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body)}\r\n{self._head}{lines}\r\n"
        )
        return head.encode("latin-1") + body

    async def ask(self, request: bytes) -> Answer:
        """Send a request on a free connection.

        Raises:
            TailorbirdError: the server cannot be reached.
            ConnectionError: it hung up before it answered.
            TimeoutError: it did not answer in time.
        """
        async with self._room:
            try:
                async with asyncio.timeout(self._limit):
                    return await self._answer(request)
            except TimeoutError:
                raise TimeoutError(f"no answer within {self._limit:g} s") from None

    async def _answer(self, request: bytes) -> Answer:
        connection = await self._connection()
        try:
            return await connection.ask(request)
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            if connection.usable:
                self._idle.append(connection)

    def close(self) -> None:
        """Hang up all connections."""
        for connection in self._idle:
            connection.close()

    async def _connection(self) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
        try:
            loop = asyncio.get_running_loop()
            _, made = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        except OSError as error:
            raise TailorbirdError(f"cannot reach {self._host}:{self._port}", got=error,
                                  hint="start one: tailorbird serve") from error  # fmt: skip
        return made


def _trusting(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise UsageError(f"no certificates in {ca}", got=reason(error)) from None


def _port(parts: SplitResult, url: str) -> int:
    try:
        return parts.port or 8000
    except ValueError:
        raise UsageError("not a server's address", got=url, expected="http://host:port",
                         hint="ports are 1 to 65535") from None  # fmt: skip
