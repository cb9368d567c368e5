"""Small objects with names, each there whole or not at all: what a repository's log is written in.

One interface over a folder and object storage, so that what needs an exclusive write has one algorithm.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tailorbird.domain.files import sync

MAX_BYTES = 64 << 10
"""What one object may hold; more is never read."""


class Objects(ABC):
    """Objects by name, such as ``log/000000000001.json``."""

    @abstractmethod
    def names(self, folder: str) -> tuple[str, ...]:
        """Names of the objects in a folder, without the folder, in order; none when there is no such folder."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """An object's bytes, one more than :data:`MAX_BYTES` at most; None when there is none of that name."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write an object that is not there yet, and for good when this returns; False when the name is taken."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is as good as removed."""

    def read_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Several objects, in the order asked for."""
        return [self.read(name) for name in names]


class LocalObjects(Objects):
    """Objects as files below a folder. Raises :class:`OSError`.

    A kill leaves no object or a whole one; it may also leave a hidden file ``.NAME.*.tmp`` beside it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, folder: str) -> tuple[str, ...]:
        """See :meth:`Objects.names`."""
        try:
            return tuple(sorted(child.name for child in (self._root / folder).iterdir() if child.name[0] != "."))
        except FileNotFoundError:
            return ()

    def read(self, name: str) -> bytes | None:
        """See :meth:`Objects.read`."""
        try:
            with (self._root / name).open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None

    def create(self, name: str, data: bytes) -> bool:
        """See :meth:`Objects.create`. A link, and not a rename, because a link never replaces what is there."""
        path = self._root / name
        _made(path.parent)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.chmod(0o444)
            os.link(aside, path)
        except FileExistsError:
            return False
        finally:
            aside.unlink(missing_ok=True)
        sync(path.parent)
        return True

    def remove(self, name: str) -> None:
        """See :meth:`Objects.remove`."""
        (self._root / name).unlink(missing_ok=True)


def _made(folder: Path) -> None:
    """The folder, there for good: a crash after an entry was written must not lose what the entry is in."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
        sync(folder.parent.parent)
