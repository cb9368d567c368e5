"""Files that survive a kill: written aside, synced, renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends, and vanishes when it raises.

    A kill leaves the old file or the new one, never half of either. It may also leave a hidden file
    ``.NAME.*.tmp`` in the same folder. Raises :class:`OSError`.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring one file's bytes, or one folder's entries, to the disk; raises :class:`OSError`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring every file under a folder, then the folders themselves, to the disk; raises :class:`OSError`."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def reason(error: OSError) -> str:
    """The system's words for an error, without its number and paths: ``No space left on device``."""
    return error.strerror or str(error)
