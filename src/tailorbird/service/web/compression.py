"""Content-Encoding of requests: gzip and deflate, never larger than a limit once they are open."""

from __future__ import annotations

import zlib

from tailorbird.service.faults import BodyTooLarge, UnknownEncoding, WireError

ACCEPTED = "gzip, deflate"
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
    kind = encoding.strip().lower()
    if kind in {"", "identity"}:
        return body
    if kind in {"gzip", "x-gzip"}:
        return _inflate(kind, body, _GZIP, limit)
    if kind == "deflate":  # RFC 9110 means zlib's format; some clients send the bare stream
        return _inflate(kind, body, _ZLIB if _is_zlib(body) else _RAW, limit)
    raise UnknownEncoding(kind[:40])


def _inflate(kind: str, body: bytes, window: int, limit: int) -> bytes:
    stream = zlib.decompressobj(window)
    try:
        data = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise WireError(f"the body is not valid {kind}", got=error) from None
    if len(data) > limit:
        raise BodyTooLarge(limit)
    if not stream.eof:
        raise WireError(f"the body is not valid {kind}", got="data cut short")
    if stream.unused_data:
        raise WireError(f"the body is not valid {kind}", got=f"{len(stream.unused_data)} bytes behind its end")
    return data


def _is_zlib(body: bytes) -> bool:
    """RFC 1950: method 8 in the low bits, and the first two bytes a multiple of 31."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
