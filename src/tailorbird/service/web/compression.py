"""Content-Encoding of requests: gzip and deflate, never larger than a limit once they are open."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from tailorbird.service.faults import BodyTooLarge, UnknownEncoding, WireError

ACCEPTED = "gzip, deflate"
_PIECE = 1 << 20
_FED = 1 << 16  # what zlib leaves of its input is copied each time
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decompress(encoding: str, body: bytes, limit: int) -> bytes:
    """The body as it was before compression.

    Args:
        encoding: the header's value; empty and ``identity`` return the body itself.
        body: the bytes received.
        limit: bytes the result may have. Not more than one byte beyond it is ever made.

    Raises:
        UnknownEncoding: neither gzip nor deflate; a list of encodings counts as unknown.
        BodyTooLarge: the result is over the limit.
        WireError: the bytes are damaged, cut short, or followed by others.
    """
    return b"".join(pieces(encoding, body, limit))


def pieces(encoding: str, body: bytes, limit: int) -> Iterator[bytes]:
    """The body as :func:`decompress` has it, and with its errors, in pieces of a mebibyte at most: for who counts.

    What is not compressed is one piece, of any size.
    """
    kind = encoding.strip().lower()
    if kind in {"", "identity"}:
        yield body
    elif kind in {"gzip", "x-gzip"}:
        yield from _inflate(kind, body, _GZIP, limit)
    elif kind == "deflate":  # RFC 9110 means zlib's format; some clients send the bare stream
        yield from _inflate(kind, body, _ZLIB if _is_zlib(body) else _RAW, limit)
    else:
        raise UnknownEncoding(kind[:40])


def is_compressed(encoding: str) -> bool:
    """Whether anything has to be done, be it to refuse it."""
    return encoding.strip().lower() not in {"", "identity"}


def _inflate(kind: str, body: bytes, window: int, limit: int) -> Iterator[bytes]:
    stream = zlib.decompressobj(window)
    start, left = 0, limit
    while start < len(body) and not stream.eof:
        for piece in _opened(kind, stream, body[start : start + _FED], limit, left):
            left -= len(piece)
            yield piece
        start += _FED
    if not stream.eof:
        raise WireError(f"the body is not valid {kind}", got="data cut short")
    behind = len(stream.unused_data) + max(0, len(body) - start)
    if behind:
        raise WireError(f"the body is not valid {kind}", got=f"{behind} bytes behind its end")


def _opened(kind: str, stream: Any, rest: bytes, limit: int, left: int) -> Iterator[bytes]:
    """What comes out of some bytes; of the limit so much is left."""
    while not stream.eof:
        try:
            piece = stream.decompress(rest, min(_PIECE, left + 1))
        except zlib.error as error:
            raise WireError(f"the body is not valid {kind}", got=error) from None
        rest, left = stream.unconsumed_tail, left - len(piece)
        if left < 0:
            raise BodyTooLarge(limit)
        if not piece:
            return
        yield piece


def _is_zlib(body: bytes) -> bool:
    """RFC 1950: method 8 in the low bits, and the first two bytes a multiple of 31."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
