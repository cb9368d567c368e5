"""Staging: a private folder for each publish, and the sweeping of those whose owner died.

Each folder has a lock file beside it, held by its owner. The system frees the lock when the owner
dies, however it dies, so a folder whose lock can be had is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".lock"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, made when it is missing; raises :class:`OSError`."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def staging(incoming: Path) -> Iterator[Path]:
    """A new private folder, gone when the block ends; raises :class:`OSError`."""
    incoming.mkdir(parents=True, exist_ok=True)
    handle, folder = _owned(incoming)
    try:
        folder.mkdir()
        yield folder
    finally:
        _remove(folder)
        os.close(handle)


def sweep(incoming: Path, mend: Callable[[str], None]) -> None:
    """Remove the folders of dead owners.

    Args:
        incoming: where the folders are.
        mend: called with the name of each thing left in a folder, before the folder is removed.

    Raises:
        OSError: the disk refused.
    """
    for lock in sorted(incoming.glob(f"*{_LOCK}")):
        _sweep_one(lock, mend)


def dead(incoming: Path) -> Iterator[Path]:
    """The folders of dead owners, left as they are; raises :class:`OSError`."""
    for lock in sorted(incoming.glob(f"*{_LOCK}")):
        with contextlib.suppress(FileNotFoundError), lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its owner lives
            yield lock.with_suffix("")


def _owned(incoming: Path) -> tuple[int, Path]:
    """A lock that is held, and the folder it stands for."""
    while True:
        folder = incoming / secrets.token_hex(8)
        handle = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, folder
        os.close(handle)  # a sweeper took the new file for a dead owner's


def _sweep_one(lock: Path, mend: Callable[[str], None]) -> None:
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return  # its owner was quicker
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = lock.with_suffix("")
        for child in folder.glob("*"):
            mend(child.name)
        _remove(folder)
    except BlockingIOError:
        pass  # its owner lives
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """The folder first, its lock last: a kill in between leaves a lock that the next sweep finds."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
