"""The doors of a server: what is locked with what, and the door for administration."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_UNIX, socket

from prometheus_client.core import Metric

from tailorbird.domain.errors import UsageError
from tailorbird.service.guard import socketfile
from tailorbird.service.guard.guard import Guard
from tailorbird.service.guard.refusals import Refusals
from tailorbird.service.guard.scopes import Door
from tailorbird.service.guard.tls import ClientNames, Tls
from tailorbird.service.guard.tokenfile import TokenFile
from tailorbird.service.observe import journal
from tailorbird.service.options import ServerOptions
from tailorbird.service.web.admin import Administration, Entrance
from tailorbird.service.web.http import HttpService
from tailorbird.service.web.listener import Beside, Listener, bind
from tailorbird.serving.dataplane import DataPlane

UNIX = "unix:"
LOOPBACK = "127.0.0.1"


class Doors:
    """Locks and keys of one server, read once for all its doors.

    Args:
        options: what is asked for.

    Raises:
        UsageError: a file of tokens, keys or certificates is wrong.
        TailorbirdError: it cannot be read.
    """

    def __init__(self, options: ServerOptions) -> None:
        found = self._options = options.guarding
        self._limits = options.limits
        self._tokens = None if found.tokens is None else TokenFile(found.tokens)
        self.tls = None if found.tls is None else Tls(found.tls)
        names = found.client_names or ("*",)
        self._clients = ClientNames(names) if self.tls and self.tls.asks_certificates else None
        self.refusals = Refusals()
        self._admin: socket | None = None

    @property
    def locked(self) -> bool:
        """Whether anybody is asked who he is."""
        return self._tokens is not None or self._clients is not None

    def guard(self, door: Door) -> Guard | None:
        """The guard of a door on the network; None where everybody may do all that is offered there."""
        if not self.locked and door is not Door.ADMIN:
            return None
        return Guard(door, self._tokens, self._clients, open_health=self._options.open_health, refusals=self.refusals)

    def public(self, plane: DataPlane) -> Entrance:
        """How HTTP and gRPC are entered."""
        with_admin = self._options.admin_on_public
        guard = self.guard(Door.PUBLIC_WITH_ADMIN if with_admin else Door.PUBLIC)
        return Entrance(guard, self.tls, Administration(plane) if with_admin else None)

    def metrics(self) -> Entrance:
        """How the port of metrics is entered."""
        return Entrance(self.guard(Door.METRICS), self.tls)

    def families(self) -> Iterator[Metric]:
        """What was refused, as metrics; nothing where nothing is locked."""
        if self.locked:
            yield self.refusals.family()

    def open(self, public: socket) -> None:
        """Bind the door for administration, and refuse to open to the network what only a lock may open.

        Args:
            public: the public port.

        Raises:
            UsageError: the door's address is none, or others could reach administration unasked.
            TailorbirdError: the address is taken.
        """
        reachable = not _is_loopback(public)
        if self._options.admin_on_public and reachable and not self.locked:
            raise _unlocked("--admin-on-public", public)
        if self._tokens is not None and self.tls is None and reachable:
            journal.record("tokens travel in the clear", level="warning", hint="--tls-cert and --tls-key encrypt them")
        if self._options.admin:
            self._admin = _bound(self._options.admin)
            if not self.locked and not _is_loopback(self._admin):
                raise _unlocked("--admin", self._admin)

    def administration(self, plane: DataPlane, metrics: Callable[[], bytes]) -> list[Beside]:
        """The listener at the door for administration that was opened: one, or none."""
        if self._admin is None:
            return []
        by_file = self._admin.family == AF_UNIX
        # Whoever can open the file is its owner, who could write himself a token as well.
        guard = Guard(Door.ADMIN, refusals=self.refusals) if by_file else self.guard(Door.ADMIN)
        app = HttpService(plane, self._limits, metrics, entrance=Entrance(guard, admin=Administration(plane)))
        tls = None if by_file else self.tls
        return [_AdminListener(app, self._admin, _announce, limits=self._limits, tls=tls)]

    def close(self) -> None:
        """Give the door for administration back, if it was never listened at."""
        if self._admin is not None:
            _remove_file(self._admin)
            self._admin.close()


class _AdminListener(Listener):
    """A listener that takes its socket's file away before it stops to listen: so it is never another server's."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        _remove_file(self._bound)
        await super().shutdown(sockets)


def _remove_file(bound: socket) -> None:
    if bound.fileno() >= 0 and bound.family == AF_UNIX:
        Path(bound.getsockname()).unlink(missing_ok=True)


def _bound(asked: str) -> socket:
    if asked.startswith(UNIX):
        return socketfile.bind_file(Path(asked.removeprefix(UNIX)))
    return bind(*_address(asked))


def _address(text: str) -> tuple[str, int]:
    """``PORT``, or ``HOST:PORT``; without a host this machine alone."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal()) or len(port) > 5:
        raise UsageError("no door for administration", got=repr(text), expected="PORT, HOST:PORT or unix:PATH")
    return host.strip("[]") or LOOPBACK, int(port)


def _is_loopback(bound: socket) -> bool:
    if bound.family == AF_UNIX:
        return True
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def _unlocked(flag: str, bound: socket) -> UsageError:
    return UsageError(f"{flag} would let anybody load and unload models", got=f"address {bound.getsockname()[0]}",
                      expected="--tokens, --tls-client-ca, a loopback address or unix:PATH")  # fmt: skip


def _announce(url: str) -> None:
    journal.record("administration is served", url=url)
