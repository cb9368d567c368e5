"""Timing and kernel caches: what the library found out about a device, kept for later builds and loads.

They lie beside the cache of builds, in the same private folder, and are the vendor's own formats: it refuses what
another version or device wrote. To lose one costs time, nothing else, so no failure here ends a build.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from tailorbird.domain.cache import cache_root
from tailorbird.domain.claims import make_folder
from tailorbird.domain.files import replacing

_FOLDER = "vendor-timing"


class KeptFile:
    """One file of bytes in the private folder, named by what it depends on."""

    def __init__(self, *depends_on: str, root: Path | None = None) -> None:
        self._root = root or cache_root()
        name = hashlib.sha256("\0".join(depends_on).encode()).hexdigest()
        self._path = self._root / _FOLDER / name

    def read(self) -> bytes:
        """What was kept, or nothing."""
        with contextlib.suppress(OSError):
            return self._path.read_bytes()
        return b""

    def write(self, content: bytes) -> None:
        """Replace it, whole or not at all."""
        with contextlib.suppress(OSError):
            make_folder(self._root, self._path.parent)
            with replacing(self._path) as file:
                file.write(content)


class TimingCache:
    """Times of tactics on this device, shared by all candidates and builds: layers that were timed are not again.

    Builds side by side each add to what they found; the last to end is the one whose additions are kept.
    """

    def __init__(self, kept: KeptFile) -> None:
        self._kept = kept

    def attach(self, config: Any) -> Any:
        """The vendor's cache, filled with what is known; it must live until the build ends."""
        for content in (self._kept.read(), b""):  # one that is damaged, then none
            with contextlib.suppress(Exception):
                cache = config.create_timing_cache(content)
                if cache is not None and config.set_timing_cache(cache, False):
                    return cache
        return None

    def keep(self, cache: Any) -> None:
        """Keep it for later builds."""
        with contextlib.suppress(Exception):
            self._kept.write(bytes(cache.serialize()))
