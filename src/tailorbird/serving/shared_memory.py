"""System shared memory of local clients: tensors that need not travel through a socket. Off unless it is asked for.

What a client names is opened as ``shm_open`` would, and then never mapped: tensors are copied with ``preadv`` and
``pwrite``. A client may shrink its segment at any moment; under a mapping that is SIGBUS, and the end of the server,
while a read that comes back short is an error like any other. It also means that what is judged is what is run:
a client cannot alter a tensor after its shape was checked.

The server's own segments are anonymous (``memfd``) and have no name that could be given here.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import weakref
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import InputError, Overloaded
from tailorbird.serving.slices import Slice

SEGMENTS = Path("/dev/shm")
"""Where Linux keeps what ``shm_open`` makes; ``shm_overview(7)``."""
REGIONS = 256
"""Regions at once; each holds a file descriptor."""
REGION_BYTES = 16 << 30
"""Bytes of all regions together."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KEY = re.compile(r"/?(?!sem\.)[A-Za-z0-9_-][A-Za-z0-9._-]{0,249}")  # sem.: semaphores lie in the same folder
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class UnknownRegion(InputError):
    """No region has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown shared memory region '{name[:128]}'")


class RegionExists(InputError):
    """A region has that name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"shared memory region '{name}' is registered already", hint="unregister it first")


class RegionStatus(msgspec.Struct, frozen=True):
    """A registered region, as the extension states it."""

    name: str
    key: str
    offset: int
    """Bytes from the segment's beginning."""
    byte_size: int


class _Region:
    """An open segment. Its descriptor is closed when the last request that uses it lets go."""

    def __init__(self, status: RegionStatus, descriptor: int) -> None:
        self.status = status
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def holds(self, size: int) -> bool:
        """Whether the segment, as it is now, reaches so many bytes into the region."""
        return os.fstat(self.descriptor).st_size >= self.status.offset + size


class Regions:
    """The regions that clients registered. Every method may be called from any thread.

    Args:
        request_bytes: of the inputs that one request has in regions, at most.
        held_bytes: of those of all requests that live, at most.
        owners: users whose segments may be named, besides the server's own.
        folder: where segments are.
    """

    def __init__(
        self, request_bytes: int, held_bytes: int, owners: Iterable[int] = (), folder: Path = SEGMENTS
    ) -> None:
        self._request_bytes = request_bytes
        self._held_bytes = held_bytes
        self._owners = frozenset({os.geteuid(), *owners})
        self._folder = folder
        self._regions: dict[str, _Region] = {}
        self._lock = threading.Lock()
        self._copies: dict[int, tuple[weakref.ref[Array], int]] = {}
        self._numbers = count()

    @property
    def held(self) -> int:
        """Bytes of tensors copied out of regions, while their requests live."""
        return sum(size for _, size in tuple(self._copies.values()))

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Make a client's segment known by a name.

        Args:
            name: how requests call the region.
            key: the segment's name, as given to ``shm_open``.
            offset: where in the segment the region begins, in bytes.
            size: the region's bytes.

        Raises:
            RegionExists: there is a region of that name.
            InputError: a name, number or limit is wrong, or there is no such segment that may be used; which of
                its possible faults a segment has is not said.
        """
        _check_names(name, key)
        if offset < 0 or size < 1 or offset + size >= 2**63:
            raise InputError(f"region '{name}' has no such extent", got=f"{size} bytes at {offset}",
                            expected="1 byte or more, at 0 or more")  # fmt: skip
        region = _Region(RegionStatus(name, key, offset, size), self._open(name, key))
        if not region.holds(size):
            raise InputError(f"region '{name}' ends outside its segment", got=f"{size} bytes at {offset}")
        with self._lock:
            self._admit(region)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or without a name all of them. One that is not there is forgotten already."""
        with self._lock:
            if name:
                self._regions.pop(name, None)
            else:
                self._regions.clear()

    def status(self, name: str = "") -> tuple[RegionStatus, ...]:
        """One region, or without a name all of them in the order of registration.

        Raises:
            UnknownRegion: there is none of that name.
        """
        if name:
            return (self._found(name).status,)
        return tuple(region.status for region in tuple(self._regions.values()))

    def reader(self) -> Reader:
        """What reads one request's inputs."""
        return Reader(self, self._request_bytes)

    def copy(self, where: Slice) -> memoryview:
        """The bytes of a slice, copied.

        Raises:
            UnknownRegion: there is no such region.
            InputError: the slice reaches out of it, or its segment was shrunk.
            Overloaded: too much is copied already.
        """
        region = self._inside(where)
        if self.held + where.size > self._held_bytes:
            raise Overloaded("the server holds too many tensors from shared memory", got=f"{self.held} bytes",
                             expected=f"at most {self._held_bytes} bytes",
                             hint="send the request again in a moment")  # fmt: skip
        copied = np.empty(where.size, np.uint8)
        number = next(self._numbers)
        gone = weakref.ref(copied, lambda _: self._copies.pop(number, None))
        self._copies[number] = (gone, where.size)
        view = copied.data
        place, start = 0, region.status.offset + where.offset
        while place < where.size:
            got = _copied(region, view[place:], start + place)
            if not got:
                raise _shrunk(where.region)
            place += got
        return view

    def write(self, where: Slice, blob: memoryview | bytes) -> None:
        """Write to the beginning of a slice.

        Raises:
            UnknownRegion: there is no such region.
            InputError: the slice is too small, reaches out of its region, or its segment was shrunk.
        """
        rest = memoryview(blob)
        if rest.nbytes > where.size:
            raise InputError(f"the piece of region '{where.region}' is too small for its output",
                             got=f"{where.size} bytes", expected=f"at least {rest.nbytes} bytes")  # fmt: skip
        region = self._inside(where)
        start = region.status.offset + where.offset
        if not region.holds(where.offset + rest.nbytes):  # writing past the end would let it grow again
            raise _shrunk(where.region)
        try:
            while rest:
                written = os.pwrite(region.descriptor, rest, start)
                rest, start = rest[written:], start + written
        except OSError:
            raise _shrunk(where.region) from None

    def _inside(self, where: Slice) -> _Region:
        region = self._found(where.region)
        if where.offset + where.size > region.status.byte_size:
            raise InputError(f"shared memory outside of region '{where.region}'",
                            got=f"{where.size} bytes at {where.offset}",
                            expected=f"within {region.status.byte_size} bytes")  # fmt: skip
        return region

    def _found(self, name: str) -> _Region:
        region = self._regions.get(name)
        if region is None:
            raise UnknownRegion(name)
        return region

    def _admit(self, region: _Region) -> None:
        status = region.status
        if status.name in self._regions:
            raise RegionExists(status.name)
        total = sum(one.status.byte_size for one in self._regions.values())
        if len(self._regions) >= REGIONS or total + status.byte_size > REGION_BYTES:
            raise InputError("too much shared memory is registered", got=f"{len(self._regions)} regions, {total} bytes",
                            expected=f"at most {REGIONS} regions, {REGION_BYTES} bytes",
                            hint="unregister what is no longer used")  # fmt: skip
        self._regions[status.name] = region

    def _open(self, name: str, key: str) -> int:
        refused = InputError(f"region '{name}' has no segment that this server may use")
        descriptor = -1
        try:
            folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                descriptor = os.open(key.removeprefix("/"), _FLAGS, dir_fd=folder)
            finally:
                os.close(folder)
            found = os.fstat(descriptor)
        except OSError:
            raise refused from None
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in self._owners:
            os.close(descriptor)
            raise refused
        return descriptor


class Reader:
    """Reads the inputs of one request, up to a limit for all of them."""

    def __init__(self, regions: Regions, most: int) -> None:
        self._regions = regions
        self._most = self._left = most

    def read(self, where: Slice) -> memoryview:
        """The bytes of a slice; raises as :meth:`Regions.copy`, and :class:`InputError` over the limit."""
        self._left -= where.size
        if self._left < 0:
            raise InputError("the request has too much in shared memory", expected=f"at most {self._most} bytes")
        return self._regions.copy(where)


def _check_names(name: str, key: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError("a region's name is no name", got=repr(name[:40]),
                        expected="1 to 128 of A-Z a-z 0-9 . _ -")  # fmt: skip
    if not _KEY.fullmatch(key) or ".." in key:
        raise InputError(f"the key of region '{name}' is no key", got=repr(key[:40]),
                        expected="/ and a name of A-Z a-z 0-9 . _ -")  # fmt: skip


def _copied(region: _Region, into: memoryview, start: int) -> int:
    try:
        return os.preadv(region.descriptor, [into], start)
    except OSError:
        raise _shrunk(region.status.name) from None


def _shrunk(name: str) -> InputError:
    return InputError(f"region '{name}' is no longer whole", hint="register it again")
