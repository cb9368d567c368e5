"""A recording's files: one after another, and never more of them than fit into the limit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from tailorbird.domain.errors import UsageError
from tailorbird.domain.files import reason, sync
from tailorbird.domain.trace import SUFFIX, header_line

LEAST_BYTES = 64 << 10
"""The smallest limit of a recording."""
_PARTS = 8
"""Files that the limit is divided into, so that the oldest eighth goes at a time."""
_MOST_BYTES = 32 << 20
_LOCK = ".recording"
_OURS = re.compile(rf"\d{{8}}T\d{{6}}\.\d{{6}}Z-\d{{6}}{re.escape(SUFFIX)}", re.ASCII)


class TraceFiles:
    """Where a recording is written. Lines are appended; a file is synced to the disk when it is full and at the end.

    A kill of the process loses nothing that was appended; a power cut may lose the end of the latest file.

    Args:
        folder: made if it is not there. One recording at a time; what earlier ones left counts towards the limit.
        limit: bytes that all files of the folder may have.

    Raises:
        UsageError: the folder cannot be written, another server records there, or the limit is too small.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        if limit < LEAST_BYTES:
            raise UsageError("the limit of the recording is too small", got=f"{limit} bytes",
                             expected=f"{LEAST_BYTES} or more")  # fmt: skip
        self._folder = folder
        self._limit = limit
        self._most = min(limit // _PARTS, _MOST_BYTES)
        self._number = 0
        self._handle: int | None = None
        self._size = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                f"cannot record into {folder}", got=reason(error), expected="a folder to write to"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UsageError(f"another server records into {folder}", hint="give each a folder of its own") from None

    @property
    def is_open(self) -> bool:
        """Whether a file is begun; the next one has to be given its own forms."""
        return self._handle is not None

    def begin(self, started: int) -> None:
        """Begin the next file, and let the oldest go to make room; raises :class:`OSError`.

        Args:
            started: when the recording began, in Unix nanoseconds.
        """
        self._make_room()
        stamp = datetime.fromtimestamp(started / 1e9, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._number += 1
        path = self._folder / f"{stamp}-{self._number:06d}{SUFFIX}"
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0
        try:
            self.append(header_line(started, self._number))
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def append(self, lines: bytes) -> bool:
        """Append whole lines.

        Returns:
            Whether there is room for more in this file; if not, it is closed.

        Raises:
            OSError: they could not be written, and what of them was is taken back. Another file has to be begun.
        """
        assert self._handle is not None
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._size)
            self._end()
            raise
        self._size += len(lines)
        if self._size < self._most:
            return True
        self.finish()
        return False

    def finish(self) -> None:
        """End the file that is begun, if one is, synced to the disk; raises :class:`OSError`."""
        if self._handle is None:
            return
        try:
            os.fsync(self._handle)
        finally:
            self._end()
        sync(self._folder)

    def close(self) -> None:
        """Nothing more will come."""
        try:
            self.finish()
        finally:
            os.close(self._lock)

    def _end(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _make_room(self) -> None:
        """Only files that a recording made are ever removed."""
        found = [(path, path.stat().st_size) for path in sorted(self._folder.iterdir()) if _OURS.fullmatch(path.name)]
        total = sum(size for _, size in found)
        for path, size in found:
            if total + self._most <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size
