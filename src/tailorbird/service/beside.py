"""What listens beside HTTP: gRPC, and metrics on a port of their own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.service.faults import MethodNotAllowed, UnknownPath
from tailorbird.service.guard.front import enter
from tailorbird.service.guard.guard import Guard
from tailorbird.service.observe import journal
from tailorbird.service.observe.witness import Witnesses
from tailorbird.service.options import GRPC_PORT, ServerOptions
from tailorbird.service.web.admin import Entrance
from tailorbird.service.web.bodies import Message, Receive
from tailorbird.service.web.http import Scope, Send
from tailorbird.service.web.listener import Beside, Listener, bind
from tailorbird.service.web.replies import Reply, error_reply, text_reply
from tailorbird.serving.dataplane import DataPlane

if TYPE_CHECKING:
    from tailorbird.service.rpc.listener import GrpcListener

_NEEDED = ("grpc", "google.protobuf")


def grpc_beside(
    plane: DataPlane, options: ServerOptions, witnesses: Witnesses | None = None, entrance: Entrance | None = None
) -> list[Beside]:
    """The gRPC listener that the options ask for: one, or none.

    Raises:
        UsageError: it is asked for, and the extra is not installed.
    """
    if options.grpc_port == 0:
        return []
    missing = not all(map(_installed, _NEEDED))
    if options.grpc_port is None and missing:
        return []
    if missing:
        raise UsageError("gRPC is not installed here", got=f"--grpc-port {options.grpc_port}",
                         hint="pip install 'tailorbird[grpc]'")  # fmt: skip
    from tailorbird.service.rpc.listener import GrpcListener

    port = options.grpc_port or GRPC_PORT
    listener = GrpcListener(plane, options.host, port, options.limits, witnesses=witnesses, entrance=entrance)
    return [_Grpc(listener, asked=options.grpc_port is not None)]


def metrics_beside(text: Callable[[], bytes], options: ServerOptions, entrance: Entrance) -> list[Beside]:
    """The listener for metrics alone that the options ask for: one, or none; raises as :func:`bind`."""
    if options.metrics_port is None:
        return []
    bound = bind(options.host, options.metrics_port)
    app = _MetricsService(text, entrance.guard)
    return [Listener(app, bound, _told("metrics are served"), limits=options.limits, tls=entrance.tls)]


class _Grpc:
    """gRPC; where nobody asked for it a taken port is no reason not to serve."""

    def __init__(self, listener: GrpcListener, *, asked: bool) -> None:
        self._listener = listener
        self._asked = asked

    async def start(self) -> None:
        try:
            await self._listener.start()
        except TailorbirdError as error:
            if self._asked:
                raise
            journal.record("gRPC is off", level="warning", reason=error.message)
        else:
            journal.record("gRPC is served", address=self._listener.address)

    async def drain(self, grace: float) -> None:
        await self._listener.drain(grace)


class _MetricsService:
    """An ASGI callable with one path."""

    def __init__(self, text: Callable[[], bytes], guard: Guard | None) -> None:
        self._text = text
        self._guard = guard

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        reply = self._reply(scope)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        last: Message = {"type": "http.response.body", "body": reply.body}
        await send(last)

    def _reply(self, scope: Scope) -> Reply:
        try:
            if self._guard is not None:
                enter(self._guard, scope)
            if scope["raw_path"] != b"/metrics":
                raise UnknownPath(scope["raw_path"].decode("ascii", "replace"))
            if scope["method"] not in ("GET", "HEAD"):
                raise MethodNotAllowed(scope["method"], "GET, HEAD")
            return text_reply(self._text())
        except Exception as error:
            return error_reply(error)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def _told(event: str) -> Callable[[str], None]:
    return lambda url: journal.record(event, url=url)
