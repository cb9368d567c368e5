"""Heads of requests: what one says of a small whole request, and those seen before, byte for byte.

A client sends the same head again and again. What a parser made of those very bytes once, it would make of them
again: so a head that is known needs no parsing. Only the parser ever says what a head means.
"""

from __future__ import annotations

import re

import msgspec

WHOLE_BYTES = 16 << 10
"""A body up to this size is small: it may wait for its last byte in the connection itself."""
REMEMBERED = 512
"""Heads kept; clients choose them, so that there must be an end."""
REMEMBERED_BYTES = 2 << 10
"""Of one head."""

_PATH = re.compile(rb"(?:/[A-Za-z0-9._-]+)+")  # which every reader of a URL reads in the same way
_SPECIAL = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"content-encoding"})
_SECRET = frozenset({b"authorization", b"proxy-authorization", b"cookie"})

READ = "tailorbird.read"
"""Where a request's scope may carry the headers of :data:`READ_HEADERS`, each of which stands once."""
BODY = "tailorbird.body"
"""Where it may carry the body, if that has arrived whole and is not encoded."""
READ_HEADERS = frozenset({b"content-length", b"content-encoding", b"inference-header-content-length"})
"""The headers that a body is read by."""

Headers = list[tuple[bytes, bytes]]


class Head(msgspec.Struct, frozen=True):
    """A head after which a body of known, small size follows and nothing else is to be heeded."""

    path: bytes
    headers: Headers
    """Names in lower case."""
    length: int
    """Bytes of the body."""
    memorable: bool
    """It holds nothing secret."""
    read: dict[bytes, bytes]
    """The headers that a body is read by."""


def plain_head(method: bytes, url: bytes, headers: Headers) -> Head | None:
    """The head of a POST that can be answered once its body is there; None for all that needs more care.

    Args:
        method: as sent.
        url: the request's target, as sent.
        headers: as parsed, names in lower case.
    """
    if method != b"POST" or not _PATH.fullmatch(url):
        return None
    names = [name for name, _ in headers]
    if not _SPECIAL.isdisjoint(names) or any(names.count(name) > 1 for name in READ_HEADERS):
        return None
    read = {name: value for name, value in headers if name in READ_HEADERS}
    length = _length(read.get(b"content-length", b""))
    return None if length is None else Head(url, headers, length, _SECRET.isdisjoint(names), read)


class Heads:
    """Heads by their bytes, of all connections of one listener."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.find = self._known.get
        """The head that exactly these bytes are, with the empty line at their end; None if it was not seen before."""

    def learn(self, raw: bytes, head: Head) -> None:
        """Remember what the parser made of ``raw``, unless it is long or secret."""
        if head.memorable and len(raw) <= REMEMBERED_BYTES:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[raw] = head


def _length(value: bytes) -> int | None:
    """What Content-Length says, if that is little."""
    if not value.isdigit() or len(value) > 5:
        return None
    length = int(value)
    return length if length <= WHOLE_BYTES else None
