"""Replies: status, headers, body. The only place where an error meets a status code."""

from __future__ import annotations

import secrets
import traceback

import msgspec

from tailorbird.domain.errors import (
    ModelNotFound,
    ServingError,
    TailorbirdError,
    UsageError,
    VersionNotFound,
)
from tailorbird.service.faults import (
    BodyTooLarge,
    Forbidden,
    MethodNotAllowed,
    NotOffered,
    Refused,
    Unauthenticated,
    UnknownEncoding,
    UnknownPath,
)
from tailorbird.service.observe import journal
from tailorbird.service.web import compression, wire
from tailorbird.serving.shared_memory import UnknownRegion

Header = tuple[bytes, bytes]

_STATUS: dict[type[BaseException], int] = {
    UsageError: 400,
    ModelNotFound: 404,
    VersionNotFound: 404,
    UnknownPath: 404,
    UnknownRegion: 404,
    MethodNotAllowed: 405,
    BodyTooLarge: 413,
    UnknownEncoding: 501,
    NotOffered: 501,
    Unauthenticated: 401,
    Refused: 403,
    ServingError: 503,
}
"""By the nearest ancestor of the error's class; anything else is the server's own fault, 500."""

_JSON: Header = (b"content-type", b"application/json")
_PAGE: list[Header] = [
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
]
_TEXT: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_BINARY: Header = (b"content-type", b"application/octet-stream")


class Reply(msgspec.Struct, frozen=True):
    """One HTTP response."""

    status: int
    headers: list[Header]
    body: bytes


def json_reply(body: bytes, status: int = 200, *extra: Header) -> Reply:
    """A reply whose body is JSON."""
    return Reply(status, [_JSON, (b"content-length", b"%d" % len(body)), *extra], body)


def html_reply(body: bytes) -> Reply:
    """A page for people; a browser runs no script in it and loads nothing for it, whatever it holds."""
    return Reply(200, [*_PAGE, (b"content-length", b"%d" % len(body))], body)


def text_reply(body: bytes) -> Reply:
    """Metrics in Prometheus' text format."""
    return Reply(200, [_TEXT, (b"content-length", b"%d" % len(body))], body)


def infer_reply(body: wire.Body) -> Reply:
    """A reply to an inference request, with the binary extension's header where it applies."""
    if body.json_bytes is None:
        return json_reply(body.data)
    headers = [
        _BINARY,
        (b"content-length", b"%d" % len(body.data)),
        (b"inference-header-content-length", b"%d" % body.json_bytes),
    ]
    return Reply(200, headers, body.data)


def error_reply(error: Exception) -> Reply:
    """The protocol's answer to an error.

    A fault of the server is answered with an identifier only: its words may name files, addresses
    or a vendor's internals, so they go to the log, under the same identifier.
    """
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    if status == 500:
        return json_reply(wire.encode_error(_opaque(error)), 500)
    assert isinstance(error, TailorbirdError)
    return json_reply(wire.encode_error(error.message), status, *_extra(error))


def _extra(error: TailorbirdError) -> list[Header]:
    if isinstance(error, ServingError):
        return [(b"retry-after", b"%d" % error.retry_after_s)]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", error.allowed.encode())]
    if isinstance(error, UnknownEncoding):
        return [(b"accept-encoding", compression.ACCEPTED.encode())]
    if isinstance(error, Refused):
        return _challenge(error)
    if isinstance(error, BodyTooLarge):  # the rest of the body will not be read
        return [(b"connection", b"close")]
    return []


def _challenge(error: Refused) -> list[Header]:
    """How to be let in, as RFC 6750, section 3, has it: no code for a request that brought no token."""
    headers: list[Header] = [(b"connection", b"close")] if error.ends_connection else []
    if isinstance(error, Unauthenticated):
        code = b', error="invalid_token"' if error.offered else b""
        if error.asks_browser:
            headers.append((b"www-authenticate", b'Basic realm="tailorbird: the token is the password"'))
        return [*headers, (b"www-authenticate", b'Bearer realm="tailorbird"' + code)]
    if isinstance(error, Forbidden) and error.scopes:
        scopes = " ".join(error.scopes).encode()
        words = b'Bearer realm="tailorbird", error="insufficient_scope", scope="' + scopes + b'"'
        return [*headers, (b"www-authenticate", words)]
    return headers


def _opaque(error: Exception) -> str:
    """Log the error in full and return what the client may know."""
    error_id = secrets.token_hex(8)
    if isinstance(error, TailorbirdError):
        journal.record("request failed", error_id=error_id, error=type(error).__name__, message=error.message)
    else:
        trace = "".join(traceback.format_exception(error))
        journal.record("request failed", error_id=error_id, error=type(error).__name__, message=str(error), trace=trace)
    return f"the server failed to answer: error {error_id}\nHint: the server's log explains it under that identifier"
