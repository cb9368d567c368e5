"""Files of keys: where they are, and how they are read and written.

``<keys>`` is ``$TAILORBIRD_KEYS``, or ``tailorbird/keys`` in ``$XDG_CONFIG_HOME`` or ``~/.config``.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tailorbird.domain.bundle import is_plain_name
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.files import reason, replacing, sync
from tailorbird.repository.staging import locked

FOLDER = "TAILORBIRD_KEYS"
MAX_KEY_BYTES = 64 << 10
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def folder() -> Path:
    """Where the keys are; it need not exist."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if config.is_absolute():
        return config / "tailorbird" / "keys"
    try:
        return Path.home() / ".config" / "tailorbird" / "keys"
    except RuntimeError:  # no home folder in the environment, nor in the system's list of users
        raise UsageError("there is no place for keys", expected=f"${FOLDER}, a folder") from None


@contextmanager
def making() -> Iterator[None]:
    """The folder of keys, made if need be, for one process at a time."""
    with disk("write"):
        place = folder()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        with locked(place / ".lock"):
            yield


def names_in(place: Path) -> tuple[str, ...]:
    """Names of the PEM files in a folder, in alphabetical order; none where there is no folder."""
    with disk("read"):
        if not place.is_dir():
            return ()
        _check_own(place)
        names = (path.name.removesuffix(".pem") for path in place.iterdir() if path.name.endswith(".pem"))
        return tuple(sorted(filter(is_plain_name, names)))


def read(path: Path, *, private: bool = False) -> bytes:
    """A key file's bytes; what is judged is the file that was opened, whatever takes its place meanwhile.

    Raises:
        UsageError: it is no plain file, larger than any key, or private and open to others than its owner.
        TailorbirdError: it cannot be read.
    """
    with disk("read", path), open(path, "rb", opener=_at_once) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_KEY_BYTES:
            raise UsageError(f"{path} is no key", expected=f"a file of at most {MAX_KEY_BYTES} bytes")
        if private and state.st_mode & _OTHERS:
            raise UsageError(f"others than its owner can use the private key {path}",
                             got=f"mode {stat.S_IMODE(state.st_mode):04o}", expected="mode 0600",
                             hint=f"chmod 600 {path}, and make a new key if others could read it")  # fmt: skip
        return file.read(MAX_KEY_BYTES)


def _check_own(place: Path) -> None:
    """Whoever can write where keys are adds a trusted one; a read-only mount of root's keeps its mode."""
    for one in {folder(), place}:
        state = one.stat()
        is_mount = state.st_uid == 0 and bool(os.statvfs(one).f_flag & os.ST_RDONLY)
        is_own = state.st_uid in (0, os.getuid()) and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not is_own and not is_mount:
            raise UsageError(f"others than this user can add keys to {one}",
                             got=f"mode {stat.S_IMODE(state.st_mode):04o}, owner {state.st_uid}",
                             expected=f"mode 0700, owner {os.getuid()} or root",
                             hint=f"chmod 700 {one}, and see that every key in it is yours")  # fmt: skip


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe has no other end to wait for


def write_private(path: Path, content: bytes, like: os.stat_result | None = None) -> None:
    """Write a private key whole or not at all, never for a moment readable by others; raises :class:`OSError`.

    Args:
        path: the file; one that is there is replaced.
        content: all of it.
        like: whose owner, group and mode the file gets; without it it is this user's alone.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if like is not None:
                _make_alike(handle, like)
            os.fsync(handle)
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _make_alike(handle: int, like: os.stat_result) -> None:
    """The owner first: the mode must not hold for a moment for somebody else."""
    now = os.fstat(handle)
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(handle, like.st_uid, like.st_gid)
    os.fchmod(handle, stat.S_IMODE(like.st_mode))


def write_public(path: Path, content: str) -> None:
    """Write a public key whole or not at all; raises :class:`OSError`."""
    with replacing(path) as file:
        file.write(content.encode("ascii"))


@contextmanager
def disk(action: str, place: Path | None = None) -> Iterator[None]:
    """The border where the system's errors become :class:`TailorbirdError`: ``cannot <action> <place>``."""
    try:
        yield
    except OSError as error:
        what = f"cannot {action} {place or f'the keys in {folder()}'}"
        raise TailorbirdError(what, got=reason(error), hint=f"${FOLDER} names another folder for keys") from error
