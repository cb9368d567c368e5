"""Claims: who writes, uses or removes a directory of the cache.

All are ``flock`` on the directory itself, so that the system ends a claim with its owner, however that dies. Writing
and removing are exclusive; using is shared.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished-"
"""How directories are named that are being written or removed."""

_OURS = re.compile(re.escape(UNFINISHED) + "([a-z0-9_]{8}|[0-9a-f]{16})")
"""What follows is ``mkdtemp``'s where one is written, and ours where one is removed."""


def is_unfinished(path: Path) -> bool:
    """Whether a path is named as this module names what is being written or removed."""
    return _OURS.fullmatch(path.name) is not None


def distrust(root: Path) -> str:
    """Why a cache's root is no place to read engines from, which run as code; empty when it is, or is not there."""
    try:
        found = root.stat()
    except OSError:
        return ""
    if found.st_uid not in (os.geteuid(), 0):
        return f"{root} belongs to another user"
    return f"others may write to {root}" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def check_root(root: Path) -> None:
    """Raise :class:`OSError` where :func:`distrust` has a reason."""
    if why := distrust(root):
        raise PermissionError(errno.EPERM, why)


def make_folder(root: Path, folder: Path) -> None:
    """A folder below the cache's root and what that is in, its owner's alone where they are new.

    Raises:
        OSError: it cannot be made, is a link, or the root is not trusted.
    """
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)
    check_root(root)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink():
        raise OSError(f"{folder} is a link")


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[tuple[Path, int]]:
    """A private directory with its lock held, gone at the end unless it was renamed."""
    while (claimed := _claimed(Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder)))) is None:
        pass  # a sweeper took it for a dead owner's
    private, handle = claimed
    try:
        yield private, handle
    finally:
        shutil.rmtree(private, ignore_errors=True)
        os.close(handle)


def _claimed(private: Path) -> tuple[Path, int] | None:
    """A new directory and its lock, or None when a sweeper was quicker."""
    try:
        handle = opened(private)
    except FileNotFoundError:
        return None
    if is_free(handle) and is_still(handle, private):
        return private, handle
    os.close(handle)
    return None


def opened(folder: Path) -> int:
    """A handle of the directory itself, never of what a link leads to; raises :class:`OSError`."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def is_still(handle: int, path: Path) -> bool:
    """Whether the path still names what was opened."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def is_free(handle: int) -> bool:
    """Take the lock if nobody holds it. On a file system without locks everything is free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def discard(place: Path) -> None:
    """Take a damaged entry out of the way at once, and remove it as soon as nobody holds it.

    Whoever reads it by its path finds no file any more, which is better than a wrong one.
    """
    gone = place.with_name(UNFINISHED + secrets.token_hex(8))
    with contextlib.suppress(OSError):
        place.rename(gone)
        removed(gone)


def removed(place: Path, idle: float = 0.0) -> bool:
    """Remove a directory unless somebody holds it, or it was used within ``idle`` seconds."""
    try:
        if place.is_symlink():
            place.unlink()
            return True
        handle = opened(place)
    except OSError:
        return False
    try:
        if not is_free(handle) or not is_still(handle, place) or time.time() - os.fstat(handle).st_mtime < idle:
            return False
        gone = place.with_name(UNFINISHED + secrets.token_hex(8))
        place.rename(gone)  # first out of sight, so that nobody finds half of it
        shutil.rmtree(gone, ignore_errors=True)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def unlink_free(lock: Path) -> None:
    """Remove a lock file that nobody holds."""
    with contextlib.suppress(OSError):
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        try:
            if is_free(handle):
                lock.unlink()
        finally:
            os.close(handle)
