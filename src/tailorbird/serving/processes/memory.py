"""Segments: anonymous shared memory that two processes map, grown on demand and never shrunk.

A segment has no name, only descriptors: nothing lies in ``/dev/shm``, nobody else can open it, and it is gone with the
last process that holds it, however that one ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator

from tailorbird.domain.closing import Closing
from tailorbird.domain.errors import BackendError
from tailorbird.domain.files import reason

SEGMENT_BYTES = 1 << 30
"""What a segment may grow to, unless told otherwise."""

_FIRST_BYTES = 1 << 16
_FAR_TOO_LARGE = 1 << 62


class Segment(Closing):
    """One side's mapping of a shared segment. One side writes and grows, the other reads and follows.

    Args:
        descriptor: of the memory; owned from here on.
        limit: bytes that may be mapped at most.

    Raises:
        BackendError: the system gives no memory.
    """

    def __init__(self, descriptor: int, limit: int = SEGMENT_BYTES) -> None:
        self.descriptor = descriptor
        self.limit = limit
        self.memory = _mapped(descriptor, min(_FIRST_BYTES, limit))

    @classmethod
    def create(cls, limit: int = SEGMENT_BYTES) -> Segment:
        """A new one, sealed against shrinking: reading what the other side cut off would kill the reader."""
        with _system("make shared memory"):
            descriptor = os.memfd_create("tailorbird", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(descriptor, min(_FIRST_BYTES, limit))
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
                return cls(descriptor, limit)
            except BaseException:
                os.close(descriptor)
                raise

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes, for the side that writes; to a power of two, so that growing is rare.

        Raises:
            BackendError: ``size`` is over the limit, or the system gives no memory.
        """
        if size <= len(self.memory):
            return
        self._check(size)
        wanted = min(1 << (size - 1).bit_length(), self.limit)
        with _system("grow shared memory"):
            if os.fstat(self.descriptor).st_size < wanted:
                os.ftruncate(self.descriptor, wanted)
        self._map(wanted)

    def follow(self, size: int) -> None:
        """Map as much as the other side says it wrote, for the side that reads.

        Raises:
            BackendError: there is no such memory, or it is over the limit.
        """
        if size <= len(self.memory):
            return
        self._check(size)
        there = os.fstat(self.descriptor).st_size
        if size > there:
            raise BackendError("shared memory ends too early", got=f"{there} bytes", expected=f"{size} bytes")
        self._map(min(there, self.limit))

    def close(self) -> None:
        """Give the descriptor and the mapping back; arrays over it keep the mapping until they go.

        It is never closed by hand: numpy holds a reference to a mapping, not a lock on it.
        """
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            del self.memory

    def _check(self, size: int) -> None:
        if size > self.limit:
            got = f"{size} bytes" if size < _FAR_TOO_LARGE else "far more"
            raise BackendError("shared memory is too small", got=got, expected=f"at most {self.limit} bytes")

    def _map(self, size: int) -> None:
        self.memory = _mapped(self.descriptor, size)  # the one before goes with the last array over it


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    with _system("map shared memory"):
        return mmap.mmap(descriptor, size)


@contextlib.contextmanager
def _system(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendError(f"cannot {action}", got=reason(error)) from error
