"""Heads of requests: what one says of a small whole request, and those seen before, byte for byte.

A client sends the same head again and again. What a parser made of those very bytes once, it would make of them
again: so a head that is known needs no parsing. Only the parser ever says what a head means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
    length = _length([value for name, value in headers if name == b"content-length"])
    if length is None or not _SPECIAL.isdisjoint(names):
        return None
    return Head(url, headers, length, _SECRET.isdisjoint(names))


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


def _length(values: Sequence[bytes]) -> int | None:
    """What the one Content-Length says, if that is little."""
    if len(values) != 1 or not values[0].isdigit() or len(values[0]) > 5:
        return None
    length = int(values[0])
    return length if length <= WHOLE_BYTES else None
