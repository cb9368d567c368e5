"""Recall: what a build asks its cache for, each answer noted in the build log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.builder.buildlog import BuildLog
from tailorbird.domain.cache import Cache
from tailorbird.domain.entry import changes, digest_of, read_record


class Recall:
    """One build's way to the cache.

    Args:
        root: of the cache.
        log: receives every answer.
        folder: a private directory in which entries are filled, and stay when the cache cannot take them.
        about: the model, for people.
    """

    def __init__(self, root: Path, log: BuildLog, folder: Path, about: str) -> None:
        self.cache = Cache(root, notice=self._notice)
        self._log = log
        self._folder = folder
        self._about = about

    def make(
        self, kind: str, key: Any, fill: Callable[[Path], None], accept: Callable[[Path], str] = lambda _: ""
    ) -> tuple[Path, bool]:
        """The entry's directory, and whether it was there; filled by ``fill`` when it was not. Raises as that does.

        Args:
            kind: of entry.
            key: all that it follows from.
            fill: writes its files.
            accept: says why an entry that was there is not good enough and must be made anew; empty when it is.
        """
        place, refused = self.cache.get(kind, key), ""
        if place is not None and (refused := accept(place)):
            self._notice("dropped", kind, refused)
        if place is None or refused:
            self._missed(kind, key)
            if refused and not self.cache.forget(kind, key):
                return self._apart(kind, fill, "the entry that was refused cannot be removed"), False
            place, ours = self._made(kind, key, fill, accept)
            if ours:
                return place, False
        self._found(kind, key, place)
        return place, True

    def _made(
        self, kind: str, key: Any, fill: Callable[[Path], None], accept: Callable[[Path], str]
    ) -> tuple[Path, bool]:
        """The entry's directory, and whether it was filled here, not by another process that was waited for.

        What such a process made and is refused here stays that process's own.
        """
        ours = False

        def ourselves(folder: Path) -> None:
            nonlocal ours
            ours = True
            fill(folder)

        place = self.cache.make(kind, key, ourselves, about=self._about, aside=self._folder)
        if ours or not (refused := accept(place)):
            return place, ours
        return self._apart(kind, fill, f"another build's is there: {refused}"), True

    def _apart(self, kind: str, fill: Callable[[Path], None], why: str) -> Path:
        """A directory of this build's own, where the cache keeps another."""
        place = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self._folder))
        fill(place)
        self._notice("not kept", kind, why)
        return place

    def _found(self, kind: str, key: Any, place: Path) -> None:
        record = read_record(place)
        self._log.write("cache", kind=kind, about=record.about, key=digest_of(key), hit=True, made=record.made,
                        changed=())  # fmt: skip

    def _missed(self, kind: str, key: Any) -> None:
        nearest = self.cache.nearest(kind, key, self._about)
        made = nearest.record.made if nearest else ""
        self._log.write("cache", kind=kind, about=self._about, key=digest_of(key), hit=False, made=made,
                        changed=msgspec.to_builtins(changes(nearest.record.key, key)) if nearest else ())  # fmt: skip

    def _notice(self, what: str, kind: str, reason: str) -> None:
        self._log.write("cache notice", what=what, kind=kind, reason=reason)
