"""External data of an ONNX file, read as a stranger's: nothing outside the model's directory is ever opened.

The rules answer a row of CVEs in ``onnx`` itself (2022-25882, 2024-27318, 2025-51480, 2026-27489, 2026-34445
to 34447): ``..``, nested paths, symbolic links, hard links, keys that set attributes. Each component of a
location is opened beneath the one before it, never through a symbolic link, so there is no moment between
a check and a use. Sizes are checked before memory is taken.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.errors import ModelError

KEYS = ("location", "offset", "length", "checksum")
"""What an external tensor may say about itself (onnx.proto, ``TensorProto.external_data``)."""

_LINK_HINT = "copy the real file beside the model: a link could lead out of its directory, so none is followed"


class ExternalRange(msgspec.Struct, frozen=True):
    """Where one tensor's bytes lie: a range of a file below the model's directory."""

    tensor: str
    location: str
    """Relative path with ``/``, without ``.`` or ``..``."""
    offset: int
    length: int | None
    """Bytes; None means as many as the tensor needs."""
    checksum: str | None
    """SHA-1 of the whole file, in hexadecimal."""


def external_range(tensor: Any) -> ExternalRange | None:
    """What a ``TensorProto`` says about external data; None when it has none.

    Raises:
        ModelError: unknown or repeated keys, a location that is not plainly below the model, a bad number,
            or data both inside and outside.
    """
    if not (tensor.external_data or tensor.data_location == tensor.EXTERNAL):
        return None
    entries = _entries(tensor)
    if tensor.HasField("raw_data") and tensor.raw_data:
        raise _refused(tensor.name, "holds its data twice", got="bytes inside and external data")
    return ExternalRange(
        tensor=tensor.name,
        location=_location(tensor.name, entries.get("location", "")),
        offset=_number(tensor.name, "offset", entries.get("offset")) or 0,
        length=_number(tensor.name, "length", entries.get("length")),
        checksum=entries.get("checksum") or None,
    )


def joint_digest(main: str, external: Mapping[str, str]) -> str:
    """The digest of a model and its data files.

    Args:
        main: ``sha256:<hex>`` of the model file.
        external: SHA-256 of each data file, in hexadecimal, by location.

    Returns:
        ``main`` without data files; otherwise ``sha256-files:<hex>``, the SHA-256 of a line ``<hex> <location>`` for
        each file: the model first, with an empty location, then the data files in order of location.
    """
    if not external:
        return main
    lines = [f"{main.rpartition(':')[2]} ", *(f"{digest} {location}" for location, digest in sorted(external.items()))]
    return "sha256-files:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


class DataDirectory:
    """The directory of one model, as an open file descriptor that locations are resolved beneath.

    Args:
        path: the directory; it may itself be reached through links, because the user named it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._verified: dict[str, str] = {}

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def __enter__(self) -> DataDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, place: ExternalRange, needed: int) -> None:
        """Raise :class:`ModelError` unless the range exists in a plain file and is ``needed`` bytes long."""
        with self._opened(place) as fd:
            _check_range(place, needed, os.fstat(fd).st_size)

    def read(self, place: ExternalRange, needed: int) -> bytes:
        """The ``needed`` bytes of one tensor, after :meth:`check` and the file's checksum if it gives one."""
        with self._opened(place) as fd:
            _check_range(place, needed, os.fstat(fd).st_size)
            self._verify(place)
            return _read_exactly(fd, place, needed)

    def digest(self, place: ExternalRange) -> str:
        """SHA-256 of the whole file behind a range, in hexadecimal."""
        return self._hash(place, "sha256")

    def _hash(self, place: ExternalRange, algorithm: str) -> str:
        with self._opened(place) as fd, os.fdopen(os.dup(fd), "rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()

    def _verify(self, place: ExternalRange) -> None:
        if place.checksum is None or place.location in self._verified:
            return
        found = self._hash(place, "sha1")
        if found != place.checksum.lower():
            raise _refused(
                place.tensor,
                f"names '{place.location}', whose checksum differs",
                got=found,
                expected=place.checksum,
                hint="copy or download the data file again",
            )
        self._verified[place.location] = found

    @contextmanager
    def _opened(self, place: ExternalRange) -> Iterator[int]:
        """A read descriptor of the range's file: regular, with one name, reached through no link."""
        fd = self._descend(place)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _refused(place.tensor, f"names '{place.location}', which is not a regular file")
            if status.st_nlink != 1:
                raise _refused(
                    place.tensor,
                    f"names '{place.location}', a file with more than one name",
                    got=f"{status.st_nlink} hard links",
                    expected="1",
                    hint=_LINK_HINT,
                )
            yield fd
        finally:
            os.close(fd)

    def _descend(self, place: ExternalRange) -> int:
        *folders, name = place.location.split("/")
        here = os.dup(self._fd)
        try:
            for folder in folders:
                here = self._step(place, here, folder, os.O_DIRECTORY)
            # Without O_NONBLOCK a pipe in the file's place would make us wait for a writer.
            here = self._step(place, here, name, os.O_NONBLOCK)
            return os.dup(here)
        finally:
            os.close(here)

    def _step(self, place: ExternalRange, here: int, name: str, flags: int) -> int:
        """Open one component beneath ``here``, which is closed in exchange."""
        try:
            there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=here)
        except OSError as error:
            raise self._why(place, here, name, error) from None
        os.close(here)
        return there

    def _why(self, place: ExternalRange, here: int, name: str, error: OSError) -> ModelError:
        if _is_link(here, name):
            return _refused(
                place.tensor,
                f"names '{place.location}', which leads through a symbolic link",
                got=f"link '{name}'",
                expected="a regular file",
                hint=_LINK_HINT,
            )
        if error.errno == errno.ENOENT:
            return _refused(
                place.tensor,
                f"names '{place.location}', which is missing",
                expected=f"a file beneath {self._path}",
                hint="copy it beside the model",
            )
        return _refused(place.tensor, f"names '{place.location}', which cannot be opened", got=error.strerror)


def _entries(tensor: Any) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in KEYS:
            raise _refused(tensor.name, f"has an unknown external data key {entry.key!r}", expected=", ".join(KEYS))
        if entry.key in entries:
            raise _refused(tensor.name, f"gives the external data key '{entry.key}' twice")
        entries[entry.key] = entry.value
    return entries


def _location(tensor: str, location: str) -> str:
    """The location without empty and ``.`` components."""
    parts = [part for part in location.split("/") if part not in {"", "."}]
    outside = location.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", location)
    if outside or not parts or "\\" in location or not location.isprintable() or len(location) > 1024:
        raise _refused(
            tensor,
            "names external data outside the model's directory" if outside else "names external data by a bad path",
            got=repr(location[:200]),
            expected="a relative path below the model's directory, with '/' between its parts",
        )
    return "/".join(parts)


def _number(tensor: str, key: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _refused(tensor, f"has a bad external data {key}", got=repr(text[:40]), expected="a count of bytes")
    return int(text)


def _check_range(place: ExternalRange, needed: int, size: int) -> None:
    if place.length is not None and place.length != needed:
        raise _refused(
            place.tensor,
            "has external data of the wrong length",
            got=f"{place.length} bytes",
            expected=f"{needed} bytes for its type and dims",
        )
    if place.offset + needed > size:
        raise _refused(
            place.tensor,
            f"lies outside its data file '{place.location}'",
            got=f"bytes {place.offset} to {place.offset + needed} of {size}",
            hint="the data file may be cut short: copy or download it again",
        )


def _read_exactly(fd: int, place: ExternalRange, needed: int) -> bytes:
    os.lseek(fd, place.offset, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        data = file.read(needed)
    if len(data) != needed:
        raise _refused(
            place.tensor,
            f"names '{place.location}', which changed while it was read",
            got=f"{len(data)} bytes",
            expected=f"{needed} bytes",
        )
    return data


def _is_link(here: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode)
    except (OSError, ValueError):
        return False


def _refused(tensor: str, what: str, **facts: Any) -> ModelError:
    return ModelError(f"tensor '{tensor}' {what}", **facts)
