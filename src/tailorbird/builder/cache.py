"""What builds share: directories by key, each appearing whole or not at all.

An entry is made in a private directory beside its place and renamed into it, so that a kill leaves no half entry and
of two processes that make the same one the second throws its own away. Entries used longest ago go first when the
whole grows over its limit; one used within the hour never goes, because a build may be reading it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import TailorbirdError

LIMIT_BYTES = 20 << 30
IN_USE_SECONDS = 3600.0
_UNFINISHED = ".unfinished-"


def cache_root(configured: str = "") -> Path:
    """The directory named in the settings, ``$TAILORBIRD_CACHE``, or ``~/.cache/tailorbird``; builds' part of it."""
    home = configured or os.environ.get("TAILORBIRD_CACHE") or Path.home() / ".cache" / "tailorbird"
    return Path(home) / "builds"


class Cache:
    """One directory of entries. Safe for many processes at once.

    Args:
        root: made when the first entry is.
        limit_bytes: what all entries together may take.
    """

    def __init__(self, root: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._root = root
        self._limit = limit_bytes

    def get(self, kind: str, key: Any) -> Path | None:
        """The entry's directory, or None when there is none; it counts as used now."""
        place = self._place(kind, key)
        if not place.is_dir():
            return None
        with contextlib.suppress(OSError):  # a cache that may not be written can still be read
            os.utime(place)
        return place

    def make(self, kind: str, key: Any, fill: Callable[[Path], None]) -> Path:
        """The entry's directory, filled by ``fill`` when there is none yet; what ``fill`` raises leaves nothing."""
        found = self.get(kind, key)
        if found is not None:
            return found
        place = self._place(kind, key)
        private = self._private(place)
        try:
            fill(private)
            with contextlib.suppress(OSError):  # another process was first: its entry is as good
                private.rename(place)
        finally:
            shutil.rmtree(private, ignore_errors=True)
        if not place.is_dir():
            raise TailorbirdError("the cache lost an entry while it was made", got=place, hint="give another --cache")
        self._shrink()
        return place

    def _private(self, place: Path) -> Path:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place.parent))
        except OSError as error:
            raise TailorbirdError("the cache cannot be written", got=error, hint="give another --cache") from error

    def forget(self, kind: str, key: Any) -> None:
        """Remove an entry that turned out to be damaged, so that it is made anew."""
        shutil.rmtree(self._place(kind, key), ignore_errors=True)

    def _place(self, kind: str, key: Any) -> Path:
        return self._root / kind / digest_bytes(msgspec.json.encode(key, order="deterministic")).rpartition(":")[2]

    def _shrink(self) -> None:
        """Remove what was used longest ago until the rest fits, and what killed processes left."""
        now = time.time()
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        total = sum(size for _, size, _ in entries)
        for used, size, place in entries:
            idle = now - used > IN_USE_SECONDS
            if idle and (total > self._limit or place.name.startswith(_UNFINISHED)):
                shutil.rmtree(place, ignore_errors=True)
                total -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for place in self._root.glob("*/*"):
            with contextlib.suppress(OSError):  # another process removed it meanwhile
                size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
                yield place.stat().st_mtime, size, place
