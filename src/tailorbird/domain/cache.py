"""The cache: directories by the digest of their key, each whole or not at all, shared by many processes.

::

    <root>/<kind>/<digest of the key>/entry.json     the whole key, and the digest of every other file
    <root>/<kind>/.unfinished-*                      being written, or being removed; locked by whoever does it
    <root>/<kind>/.lock-<digest>                     held by the one process that makes the entry

An entry is written aside and renamed. Nothing is synced: what a power cut damages is found by its digests at the next
use and made anew. All locks are ``flock``, freed by the system when their owner dies, however it dies; whoever
uses an entry holds a shared lock on its directory, and only what nobody holds is removed. What is not named as these
are is not the cache's, and never touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tailorbird.domain.claims import (
    check_root,
    discard,
    is_free,
    is_still,
    is_unfinished,
    make_folder,
    opened,
    removed,
    unfinished,
    unlink_free,
)
from tailorbird.domain.closing import Closing
from tailorbird.domain.entry import RECORD, Record, changes, check, digest_of, digests, encode_record, flat, read_record
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.files import reason

LIMIT_BYTES = 20 << 30
IN_USE_SECONDS = 3600.0
_LOCK = ".lock-"
_KIND = re.compile("[a-z][a-z0-9_-]*")
_NAME = re.compile("[0-9a-f]{64}")
_DAMAGE = frozenset({errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENOTDIR})
"""Errors that tell of an entry; others (no handles left, a disk that is away) tell of the process or the machine."""
_READ_ONLY = 0o444

Notice = Callable[[str, str, str], None]
"""Told what happened (``healed``, ``waiting``, ``not kept``), to which kind of entry, and why."""


def cache_root(configured: str = "") -> Path:
    """The directory named in the settings, ``$TAILORBIRD_CACHE``, or ``~/.cache/tailorbird``; builds' part of it."""
    home = configured or os.environ.get("TAILORBIRD_CACHE") or Path.home() / ".cache" / "tailorbird"
    return Path(home) / "builds"


class Entry(NamedTuple):
    """One entry as it is found."""

    record: Record
    place: Path
    used: float
    """When it was last used, in seconds since 1970."""


class Freed(NamedTuple):
    """What was removed, and what had to stay because it is in use."""

    entries: int
    bytes: int
    in_use: int


class Cache(Closing):
    """One directory of entries. Entries that were got or made stay until :meth:`close`.

    Args:
        root: made when the first entry is.
        limit_bytes: what all entries together may take.
        notice: told of what does not go as usual.
    """

    def __init__(self, root: Path, limit_bytes: int = LIMIT_BYTES, notice: Notice | None = None) -> None:
        self._root = root
        self._limit = limit_bytes
        self._notice: Notice = notice if notice is not None else lambda *_: None
        self._holds: dict[Path, int] = {}

    def close(self) -> None:
        """Let go of every entry, so that others may remove them."""
        for place in list(self._holds):
            self._let_go(place)

    def get(self, kind: str, key: Any) -> Path | None:
        """The entry's directory, held and counted as used now; None when there is none, or none that is whole.

        A damaged entry (altered, cut short, a file missing or too many) is removed and told of as healed. One that
        cannot be read just now stays.
        """
        place = self._place(kind, key)
        if not self._hold(place):
            return None
        try:
            check(place, kind)
        except (ValueError, OSError) as error:
            self._let_go(place)
            if not isinstance(error, OSError) or error.errno in _DAMAGE:
                discard(place)
                self._notice("healed", kind, _words(error))
            return None
        with contextlib.suppress(OSError):  # a cache that may not be written can still be read
            os.utime(place)
        return place

    def make(
        self, kind: str, key: Any, fill: Callable[[Path], None], *, about: str = "", aside: Path | None = None
    ) -> Path:
        """The entry's directory, filled by ``fill`` when there is none yet. One process fills, the others wait.

        Args:
            kind: a plain name.
            key: all that the entry follows from, as plain data.
            fill: writes files into an empty directory; what it raises leaves nothing behind.
            about: of which model, for people.
            aside: a private directory to fill it in. Where the cache cannot take the result, it stays there.

        Raises:
            TailorbirdError: the cache cannot be written, and nothing was said of where else to work.
        """
        found = self.get(kind, key)
        if found is not None:
            return found
        place = self._place(kind, key)
        with self._turn(kind, place, needed=aside is None):
            return self.get(kind, key) or self._made(Record(kind, key, about, {}, "", 0.0, 0), place, fill, aside)

    def forget(self, kind: str, key: Any) -> bool:
        """Remove an entry, so that it is made anew, and say whether it is gone: what others hold is left to them."""
        place = self._place(kind, key)
        self._let_go(place)
        return removed(place) or not os.path.lexists(place)

    def entries(self, kind: str | None = None) -> tuple[Entry, ...]:
        """Every readable entry, of one kind or of all, the one used last first."""
        return tuple(sorted(self._entries(kind), key=lambda entry: -entry.used))

    def nearest(self, kind: str, key: Any, about: str = "") -> Entry | None:
        """The earlier entry that differs in the fewest ingredients; one about the same model or source comes first."""
        source = flat(key).get("source")

        def distance(entry: Entry) -> tuple[bool, int, float]:
            same = entry.record.about == about or (source and flat(entry.record.key).get("source") == source)
            return not same, len(changes(entry.record.key, key)), -entry.used

        readable = (entry for entry in self.entries(kind) if entry.record.key)
        return min(readable, key=distance, default=None)

    def gc(self, limit_bytes: int | None = None) -> Freed:
        """Remove what was used longest ago until the rest fits, and what killed processes left.

        What was used within the hour, or is held by a process, stays.
        """
        limit = self._limit if limit_bytes is None else limit_bytes
        self._sweep()
        found = sorted(self._entries(), key=lambda entry: entry.used)
        over = sum(entry.record.bytes for entry in found) - limit
        gone, freed, in_use = 0, 0, 0
        for entry in found:
            if freed >= over:
                break
            if time.time() - entry.used > IN_USE_SECONDS and removed(entry.place, IN_USE_SECONDS):
                gone, freed = gone + 1, freed + entry.record.bytes
            else:
                in_use += 1
        return Freed(gone, freed, in_use)

    def clear(self, kind: str | None = None) -> Freed:
        """Remove every entry of one kind, or of all, that no process holds."""
        self._sweep()
        found = [(entry, removed(entry.place)) for entry in self._entries(kind)]
        sizes = [entry.record.bytes for entry, gone in found if gone]
        return Freed(len(sizes), sum(sizes), len(found) - len(sizes))

    def _place(self, kind: str, key: Any) -> Path:
        return self._root / kind / digest_of(key)

    def _made(self, record: Record, place: Path, fill: Callable[[Path], None], aside: Path | None) -> Path:
        start = time.monotonic()
        if aside is not None:
            return self._made_aside(record, place, fill, aside)
        with contextlib.ExitStack() as stack:
            with _writing():
                private, handle = stack.enter_context(unfinished(place.parent))
            fill(private)
            with _writing():
                self._settle(_described(record, private, start), private, handle, place)
        return place

    def _made_aside(self, record: Record, place: Path, fill: Callable[[Path], None], aside: Path) -> Path:
        """Filled elsewhere, then brought into the cache; it stays where it is when the cache cannot take it."""
        start, filled = time.monotonic(), Path(tempfile.mkdtemp(prefix=f"{record.kind}-", dir=aside))
        try:
            fill(filled)
        except BaseException:
            shutil.rmtree(filled, ignore_errors=True)
            raise
        try:
            check_root(self._root)
            with unfinished(place.parent) as (private, handle):
                whole = _described(record, filled, start)
                _bring(whole.files, filled, private)
                self._settle(whole, private, handle, place)
        except (OSError, ValueError) as error:
            self._notice("not kept", record.kind, _words(error))
            return filled
        shutil.rmtree(filled, ignore_errors=True)
        return place

    def _settle(self, record: Record, private: Path, handle: int, place: Path) -> None:
        """The last steps: the record, read-only files, the rename, and room for it."""
        (private / RECORD).write_bytes(encode_record(record))
        for name in (*record.files, RECORD):
            (private / name).chmod(_READ_ONLY)
        if os.path.lexists(place) and not removed(place):  # unreadable, or without locks another process was first
            raise FileExistsError(errno.EEXIST, "a process uses the entry that is there")
        private.rename(place)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        self._let_go(place)
        self._holds[place] = os.dup(handle)
        with contextlib.suppress(OSError):
            self.gc()

    @contextlib.contextmanager
    def _turn(self, kind: str, place: Path, needed: bool) -> Iterator[None]:
        """Be the only one that makes the entry. Where no lock can be had and none is needed, go without."""
        try:
            handle = self._locked(kind, place.with_name(_LOCK + place.name))
        except OSError as error:
            if needed:
                raise _unwritable(error) from error
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # while it is held: whoever waits for it sees that it is gone
                place.with_name(_LOCK + place.name).unlink()
            os.close(handle)

    def _locked(self, kind: str, lock: Path) -> int:
        make_folder(self._root, lock.parent)
        told = False
        while True:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                if not is_free(handle):
                    if not told:
                        self._notice("waiting", kind, "another process makes it")
                        told = True
                    fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_nlink:
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # its owner is done and took the file away

    def _hold(self, place: Path) -> bool:
        """Whether the entry is there; if so, nobody removes it from now on."""
        if place.parent.is_symlink():
            return False
        try:
            check_root(self._root)
            handle = opened(place)
        except OSError:
            return False
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        if not is_still(handle, place):
            os.close(handle)
            return False
        self._let_go(place)
        self._holds[place] = handle
        return True

    def _let_go(self, place: Path) -> None:
        handle = self._holds.pop(place, None)
        if handle is not None:
            os.close(handle)

    def _kinds(self, kind: str | None = None) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            check_root(self._root)
            for folder in sorted(self._root.iterdir()):
                ours = _KIND.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
                if ours and kind in (None, folder.name):
                    yield folder

    def _entries(self, kind: str | None = None) -> Iterator[Entry]:
        for folder in self._kinds(kind):
            for place in folder.iterdir():
                if _NAME.fullmatch(place.name) and not place.is_symlink():
                    with contextlib.suppress(OSError):  # another process removed it meanwhile
                        yield Entry(_record(place), place, place.lstat().st_mtime)

    def _sweep(self) -> None:
        """Remove what killed processes left: nobody holds its lock."""
        for folder in self._kinds():
            for path in folder.iterdir():
                if is_unfinished(path):
                    removed(path)
                elif path.name.startswith(_LOCK) and _NAME.fullmatch(path.name.removeprefix(_LOCK)):
                    unlink_free(path)


def _record(place: Path) -> Record:
    """The entry's record; for one that cannot be read its kind and size, so that it can be counted and removed."""
    try:
        return read_record(place)
    except (ValueError, FileNotFoundError):
        size = sum(file.lstat().st_size for file in place.rglob("*") if not file.is_dir())
        return Record(place.parent.name, {}, "unreadable", {}, "", 0.0, size)


def _described(record: Record, folder: Path, start: float) -> Record:
    files, size = digests(folder)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    seconds = round(time.monotonic() - start, 3)
    return msgspec.structs.replace(record, files=files, bytes=size, made=made, seconds=seconds)


def _bring(names: Iterable[str], source: Path, target: Path) -> None:
    """Every file under the target: the same one where the file system allows it, otherwise a copy."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            (target / name).hardlink_to(source / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source / name, target / name)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise _unwritable(error) from error


def _unwritable(error: Exception) -> TailorbirdError:
    return TailorbirdError("the cache cannot be written", got=error, hint="give another --cache")


def _words(error: Exception) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)
