"""The guard before HTTP: who a request's head says is calling, and what for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import MutableMapping
from typing import Any

import msgspec

from tailorbird.service.faults import Forbidden, Refused, Unauthenticated
from tailorbird.service.guard.guard import ANYBODY, Guard
from tailorbird.service.guard.tokens import Caller
from tailorbird.service.routes import Operation, Route, route

STATUS_PATH = b"/"
NAMES = "tailorbird.certificate"
"""Where a request's scope carries the names in its connection's client certificate."""
READ_AWAY_BYTES = 64 << 10
"""The announced length up to which the body of a refused request is read away, so that the connection can go on."""


class Entry(msgspec.Struct, frozen=True):
    """A request that was let in."""

    route: Route
    caller: Caller


def enter(guard: Guard, scope: MutableMapping[str, Any]) -> Entry:
    """Let a request in by its head.

    A caller must be known before it learns even which paths there are.

    Args:
        guard: of this door.
        scope: ASGI's, of one request.

    Raises:
        Refused: it is not let in; counted.
        WireError: it is, and there is no such path or method.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    try:
        if _is_open(guard, scope):
            return Entry(route(scope["method"], scope["raw_path"]), ANYBODY)
        caller = guard.known(_credential(headers, scope["raw_path"]), scope.get(NAMES, ()))
        found = route(scope["method"], scope["raw_path"])
        guard.allow(caller, found.operation, found.model)
    except Refused as error:
        error.ends_connection = _much_to_come(headers)
        error.asks_browser = scope["raw_path"] == STATUS_PATH
        guard.count(error, "http", _address(scope))
        raise
    return Entry(found, caller)


def _is_open(guard: Guard, scope: MutableMapping[str, Any]) -> bool:
    return guard.is_open(_HEALTH_PATHS.get(scope["raw_path"]))


_HEALTH_PATHS = {b"/v2/health/live": Operation.SERVER_LIVE, b"/v2/health/ready": Operation.SERVER_READY}
"""Spelt out, so that a change to the table of routes opens nothing."""


def _credential(headers: list[tuple[bytes, bytes]], path: bytes) -> str | None:
    """What the one ``Authorization`` says; two of them could be told apart differently by whoever stands before us."""
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) > 1:
        raise Unauthenticated("two Authorization headers", offered=True)
    if not found:
        return None
    text = found[0].decode("latin-1")
    return _of_browser(text) if path == STATUS_PATH else text


def _of_browser(text: str) -> str:
    """A browser asks its user for a name and a password, and sends them as Basic: the password is the token.

    For the status page alone: what a browser sends by itself must be good for nothing that changes anything.
    """
    scheme, _, rest = text.partition(" ")
    if scheme.lower() != "basic":
        return text
    try:
        pair = base64.b64decode(rest.strip(" "), validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return text
    return f"Bearer {pair.partition(':')[2]}"


def refuse_pages(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse what a web page asks a browser to send: it would come from the user's own machine, with his rights.

    Browsers put ``Origin`` on every request that a page makes and that is more than reading (Fetch standard, section
    3.2), and say whose request it is (Fetch Metadata, section 2.3); no other client does.
    """
    if any(name == b"origin" or (name == b"sec-fetch-site" and value != b"none") for name, value in headers):
        raise Forbidden("web pages do not administer this server", why="browser")


def _much_to_come(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body follows that is long, or of no known length."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length" and (len(value) > 18 or not value.isdigit() or int(value) > READ_AWAY_BYTES):
            return True
    return False


def _address(scope: MutableMapping[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
