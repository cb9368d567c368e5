"""The local repository: versions of models in a folder.

A publish copies into a hidden folder of the same file system, verifies the copy, and renames it into
place; a commit lock puts the renames of several publishers in turn. What a killed publish left is
swept by the next change.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.errors import RepositoryError
from tailorbird.domain.files import reason, replacing, sync
from tailorbird.repository import layout
from tailorbird.repository.base import Repository, VersionCheck
from tailorbird.repository.gc import Garbage
from tailorbird.repository.incoming import is_same
from tailorbird.repository.objects import LocalObjects
from tailorbird.repository.rules import Keep
from tailorbird.repository.served import described, latest_of
from tailorbird.repository.staging import dead, locked, staging, sweep

__all__ = ["LocalRepository", "VersionCheck"]

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


class LocalRepository(Repository):
    """A model repository in a folder. Safe for many processes; holds nothing open."""

    def __init__(self, root: Path, *, allow_unsigned: bool = False) -> None:
        super().__init__(str(root), LocalObjects(root / layout.OURS), allow_unsigned=allow_unsigned)
        self.root = root

    def _present(self) -> dict[str, tuple[int, ...]]:
        return {name: layout.versions_in(self.root / name) for name in layout.models_in(self.root)}

    def _fetched(self, model: str, version: int) -> Path:
        return layout.version_dir(self.root, model, version)

    def _original(self, model: str, version: int) -> AbstractContextManager[Path]:
        return contextlib.nullcontext(self._fetched(model, version))

    def _manifest_bytes(self, model: str, version: int) -> bytes:
        return bundle.manifest_bytes(self._fetched(model, version))

    def _bytes_of(self, model: str, version: int) -> int:
        return _size(self._fetched(model, version))

    def _staging(self) -> AbstractContextManager[Path]:
        return staging(layout.incoming_dir(self.root))

    def _added(self, version_dir: Path, model: str, again: bool) -> int:
        with locked(layout.commit_lock(self.root)):
            versions = self._versions()
            layout.check_twin(model, versions)
            same = None if again else self._same(version_dir, model, versions.get(model, ()))
            return same or self._commit(version_dir, model, versions.get(model, ()))

    def _same(self, version_dir: Path, model: str, versions: tuple[int, ...]) -> int | None:
        """The model's latest version, where it is this very bundle."""
        latest = latest_of(self._log.standing(), model, versions)
        folder = self._fetched(model, latest) if latest else None
        if folder is None or not (folder / bundle.MANIFEST).is_file():  # none, or not ours
            return None
        signed = (folder / bundle.SIGNATURE).is_file()
        return latest if is_same(version_dir, bundle.manifest_bytes(folder), signed) else None

    def _commit(self, version_dir: Path, model: str, versions: tuple[int, ...]) -> int:
        """Make a staged version visible under the next free number; its ``config.pbtxt`` is on the disk before."""
        target, staged = layout.model_dir(self.root, model), version_dir.parent
        number = self._next(model)
        numbered = version_dir.rename(staged / str(number))
        self._stage_config(numbered, model, number, versions)
        if _renamed(staged, target):  # the only version: it and its config.pbtxt appear at once
            sync(self.root)
            return number
        while not _renamed(numbered, target / str(number)):  # somebody else's folder has that number
            number += 1
            self._stage_config(numbered, model, number, versions)
        sync(target)
        (staged / bundlefile.CONFIG).replace(target / bundlefile.CONFIG)
        sync(target)
        return number

    def _next(self, model: str) -> int:
        """The first number after all that are there, or ever were."""
        folder = layout.model_dir(self.root, model)
        here = layout.versions_in(folder) if folder.is_dir() else ()
        known = self._log.standing().mentioned.get(model, ())  # also of those that somebody removed by hand
        return max((*here, *known), default=0) + 1

    def _stage_config(self, numbered: Path, model: str, number: int, versions: tuple[int, ...]) -> None:
        """``config.pbtxt`` as it shall be once the version is there, made anew: a stranger's could name libraries."""

        def manifest(version: int) -> bytes:
            return bundle.manifest_bytes(numbered if version == number else self._fetched(model, version))

        text = described(self._log.standing(), model, (*versions, number), number, manifest)
        path = numbered.parent / bundlefile.CONFIG
        path.write_bytes(text or (layout.model_dir(self.root, model) / bundlefile.CONFIG).read_bytes())
        sync(path)
        sync(path.parent)

    def _removed(self, model: str, version: int) -> None:
        folder = self._fetched(model, version)
        with staging(layout.incoming_dir(self.root)) as place, self._unless_gone():
            folder.rename(place / ".removed")  # out of every reader's sight at once, and then away
            _drop_empty(folder.parent)
            sync(self.root)

    @contextmanager
    def _unless_gone(self) -> Iterator[None]:
        with locked(layout.commit_lock(self.root)), contextlib.suppress(FileNotFoundError):
            yield

    def _describe(self, model: str) -> None:
        if not self.root.is_dir() or model not in layout.models_in(self.root):
            return
        with locked(layout.commit_lock(self.root)):
            versions = self._versions().get(model)
            folder = self.root / model
            if not versions:
                return
            highest = layout.versions_in(folder)[-1]
            text = described(self._log.standing(), model, versions, highest, partial(self._manifest_bytes, model))
            path = folder / bundlefile.CONFIG
            if text is None or (path.is_file() and path.read_bytes() == text):
                return
            with replacing(path) as file:
                file.write(text)

    def _swept(self) -> None:
        sweep(layout.incoming_dir(self.root), self._describe)

    def _litter(self, keep: Keep) -> Iterator[Garbage]:
        here = self._present()
        for model, version in self._log.standing().collected:
            if version in here.get(model, ()):  # a killed collection left it
                size = self._bytes_of(model, version)
                yield Garbage("removed version", self.location(model, version), size, model, version)
        for folder in dead(layout.incoming_dir(self.root)):
            yield Garbage("unfinished publish", str(folder), _size(folder))
        for path in (*self.root.glob("*/.*.tmp"), *self.root.glob(f"{layout.OURS}/*/.*.tmp")):
            if time.time() - path.stat().st_mtime >= keep.unfinished.total_seconds():
                yield Garbage("temporary file", str(path), path.stat().st_size)

    def _discard(self, garbage: Garbage) -> None:
        if garbage.kind == "temporary file":  # dead publishers' folders are swept before every change
            Path(garbage.place).unlink(missing_ok=True)

    @contextmanager
    def _border(self, action: str, hint: str | None = None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            known = self.root.is_dir()
            what = f"cannot {action} in {self.root}" if known else f"there is no repository at {self.root}"
            raise RepositoryError(what, got=reason(error), hint=hint or "publish a bundle there first") from error
        except OSError as error:
            raise RepositoryError(f"cannot {action} in {self.root}", got=reason(error), hint=hint) from error


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _drop_empty(folder: Path) -> None:
    """Remove a model's folder that holds no version any more, nor anything that is not ours."""
    if {child.name for child in folder.iterdir()} <= {bundlefile.CONFIG}:
        (folder / bundlefile.CONFIG).unlink(missing_ok=True)
        folder.rmdir()
    else:
        sync(folder)


def _renamed(source: Path, target: Path) -> bool:
    """Rename a folder; False when the place is taken."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True
