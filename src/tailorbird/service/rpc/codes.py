"""The only place where an error meets a gRPC status code."""

from __future__ import annotations

import asyncio
import secrets
import traceback

import grpc

from tailorbird.domain.errors import ModelNotFound, ServingError, TailorbirdError, UsageError, VersionNotFound
from tailorbird.service.faults import NotOffered, Refused, Unauthenticated
from tailorbird.service.observe import journal
from tailorbird.serving.shared_memory import RegionExists, UnknownRegion

DETAIL_BYTES = 2000
"""Bytes of an error's words. They travel in a header, percent-encoded, and clients refuse headers above 8 KiB."""


_CODES: dict[type[BaseException], grpc.StatusCode] = {
    UsageError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    VersionNotFound: grpc.StatusCode.NOT_FOUND,
    UnknownRegion: grpc.StatusCode.NOT_FOUND,
    RegionExists: grpc.StatusCode.ALREADY_EXISTS,
    NotOffered: grpc.StatusCode.UNIMPLEMENTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Refused: grpc.StatusCode.PERMISSION_DENIED,
    ServingError: grpc.StatusCode.UNAVAILABLE,
}
"""By the nearest ancestor of the error's class; anything else is the server's own fault, INTERNAL."""


def code_of(error: BaseException) -> grpc.StatusCode:
    """The code of an error; a client that has left is CANCELLED."""
    if isinstance(error, asyncio.CancelledError):
        return grpc.StatusCode.CANCELLED
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)


def status(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The code and the words that answer an error.

    A fault of the server is answered with an identifier only: its words may name files, addresses
    or a vendor's internals, so they go to the log, under the same identifier.
    """
    code = code_of(error)
    words = error.message if isinstance(error, TailorbirdError) else ""
    if code is grpc.StatusCode.INTERNAL:
        words = _opaque(error)
    return code, words.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore")


def _opaque(error: Exception) -> str:
    """Log the error in full and return what the client may know."""
    error_id = secrets.token_hex(8)
    facts = {"error_id": error_id, "error": type(error).__name__, "message": str(error)}
    if not isinstance(error, TailorbirdError):
        facts["trace"] = "".join(traceback.format_exception(error))
    journal.record("request failed", **facts)
    return f"the server failed to answer: error {error_id}\nHint: the server's log explains it under that identifier"
