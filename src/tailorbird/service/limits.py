"""What a request may be, checked before memory is given to it."""

from __future__ import annotations

import msgspec

NAME_LENGTH = 1024
"""Characters of an id or of a tensor's or parameter's name."""
RANK = 16
"""Dims of a tensor."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of one server."""

    body_bytes: int = 64 << 20
    """Bytes of a request's body, as sent and once more after decompression."""
    buffered_bytes: int = 1 << 30
    """Bytes of all bodies held at once, decompressed; further requests are told to come back."""
    tensors: int = 256
    """Inputs of a request, and outputs it asks for."""
    parameters: int = 64
    """Parameters of a request or of a tensor."""
    elements: int = 64 << 20
    """Elements of a tensor."""
    json_elements: int = 8 << 20
    """Elements of a tensor sent as JSON, each of which is a Python object for a moment."""
    bytes_elements: int = 1 << 18
    """BYTES elements of a request's inputs: each is a Python object, taken apart one by one."""
    read_seconds: float = 30.0
    """From the first byte of a request's head to its last; between two pieces of a body; and for reading an answer.
    Over gRPC, which does not tell of pieces, from a call's beginning to the end of its first message."""
    idle_seconds: float = 75.0
    """Between two requests of one connection, and before its first; and between two of a gRPC stream, while no answer
    is being made."""
    connections: int = 16384
    """HTTP connections at once; fewer where the system gives fewer descriptors. Further ones are told to come back."""
    grpc_connections: int = 4096
    """gRPC connections at once, each of which carries many calls."""
    grpc_calls: int = 2048
    """gRPC calls at once; gRPC itself refuses more, with RESOURCE_EXHAUSTED. A stream is one call."""
