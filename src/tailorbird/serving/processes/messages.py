"""What a server and an instance's process say to each other, as msgpack over a socket pair.

::

    server    Start                                        once
    process   Ready, or Failed and an end                  once
    server    Run                                          one at a time
    process   Done, or Failed

Tensors are not in the messages: they lie in two segments of shared memory, laid out by
:mod:`tailorbird.serving.processes.tensors`, and a message says where. The socket keeps the borders of messages
(``SOCK_SEQPACKET``), so nothing frames them.
"""

from __future__ import annotations

import msgspec

from tailorbird.domain.errors import TailorbirdError, error_from_dict
from tailorbird.repository.signing.trust import Signer

MESSAGE_BYTES = 1 << 16
"""Of one message: a few thousand tensors' places fit."""

_TEXT = 3000
"""Characters of one text of an error: vendors can say very much, and all four must fit one message."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where one tensor lies. Its name and dtype are the signature's, by position."""

    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Start(msgspec.Struct, frozen=True, tag="start"):
    """What to open, and how."""

    version_dir: str
    allow_unsigned: bool
    cores: tuple[int, ...]
    """CPU cores to keep to; empty for all."""
    segment_bytes: int
    spin_s: float
    """Seconds of looking for the next run before sleeping."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engine is verified, open and warm."""

    manifest: str
    """Digest of the manifest as encoded anew."""
    signer: Signer | None


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Run the engine once."""

    number: int
    extent: int
    """Bytes of the segment that the tensors reach to."""
    tensors: tuple[Place, ...]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The outputs of run ``number`` are there."""

    number: int
    extent: int
    tensors: tuple[Place, ...]


class Fault(msgspec.Struct, frozen=True):
    """An error, as :meth:`TailorbirdError.to_dict` has it."""

    error: str
    what: str
    got: str | None = None
    expected: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: TailorbirdError) -> Fault:
        """An error as data, with its texts cut to what a message holds."""
        return cls(**{name: text and text[:_TEXT] for name, text in error.to_dict().items()})

    def rebuilt(self) -> TailorbirdError:
        """The error again."""
        return error_from_dict(msgspec.to_builtins(self))


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Run ``number`` failed; 0 is the start."""

    number: int
    fault: Fault


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""A message as bytes."""
to_process = msgspec.msgpack.Decoder(Start)
"""Reads the first message to a process."""
to_run = msgspec.msgpack.Decoder(Run)
"""Reads every later one."""
at_start = msgspec.msgpack.Decoder(Ready | Failed)
"""Reads a process's first message."""
to_answer = msgspec.msgpack.Decoder(Done | Failed)
"""Reads every later one."""
