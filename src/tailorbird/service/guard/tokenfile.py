"""The file of tokens: private, written whole or not at all, read again when it changes."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.files import reason
from tailorbird.repository.signing.keyfiles import write_private
from tailorbird.repository.staging import locked
from tailorbird.service.guard.tokens import SCHEMA, Recognised, TokenRecord, TokenSet, recognise
from tailorbird.service.observe import journal

MAX_BYTES = 4 << 20
LOOK_SECONDS = 1.0
"""How long a revoked token may still pass."""
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_decoder = msgspec.json.Decoder(TokenSet)


def read(path: Path) -> TokenSet:
    """The tokens in a file.

    Raises:
        UsageError: it is no such file, or others than its owner could add to it.
        TailorbirdError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:
            state = os.fstat(file.fileno())
            _check(path, state)
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no file of tokens at {path}",
                         hint="'tailorbird token create NAME --file FILE' makes one") from None  # fmt: skip
    except OSError as error:
        raise TailorbirdError(f"cannot read the tokens in {path}", got=reason(error)) from None
    return _parsed(path, content)


@contextmanager
def changing(path: Path) -> Iterator[dict[str, TokenRecord]]:
    """The tokens of a file by id, to be changed by one process at a time; written when the block ends well.

    What is written is the file that a link leads to, since that is what a server may follow; and a file that is there
    keeps its owner, group and mode, or else stays as it is: the server's user must be able to read it afterwards.

    Raises:
        UsageError: there is a file, and it is none of tokens.
        TailorbirdError: it cannot be read, or not be written with the owner that it has.
    """
    path = Path(os.path.realpath(path))
    try:
        if path.is_symlink():
            raise UsageError(f"the link {path} leads to itself")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(path.with_name(f".{path.name}.lock")):
            like = path.stat() if path.exists() else None
            known = _by_id(read(path)) if like else {}
            yield known
            found = TokenSet(SCHEMA, tuple(known.values()))
            write_private(path, msgspec.json.format(msgspec.json.encode(found, order="deterministic")) + b"\n", like)
    except OSError as error:
        raise TailorbirdError(f"cannot write the tokens in {path}", got=reason(error)) from None


class TokenFile:
    """The tokens of a running server, which follows its file.

    A file that cannot be read any more lets nobody in until it can: what it last said may be what was just revoked.

    Args:
        path: the file.
        clock: seconds, for when to look again.

    Raises:
        UsageError, TailorbirdError: as :func:`read`.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked = clock()
        self._state = _state(path)
        self._known: dict[str, TokenRecord] | None = _by_id(read(path))

    def recognise(self, token: str) -> Recognised:
        """What a token is good for now."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        if self._known is None:
            return Recognised(None, "the file of tokens cannot be read")
        return recognise(token, self._known, datetime.now(UTC))

    def _look(self) -> None:
        state = _state(self._path)
        if state == self._state and self._known is not None:
            return
        was_good = self._known is not None or state != self._state
        self._state = state
        try:
            self._known = _by_id(read(self._path))
        except TailorbirdError as error:
            self._known = None
            if was_good:  # once, not every second
                journal.record("tokens cannot be read: nobody is let in", level="error", reason=error.message)
        else:
            journal.record("tokens read again", tokens=len(self._known))


def _by_id(found: TokenSet) -> dict[str, TokenRecord]:
    return {one.id: one for one in found.tokens}


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check(path: Path, state: os.stat_result) -> None:
    """Digests may be read by anyone, as nobody finds a token by one; but whoever writes there lets himself in."""
    if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
        raise UsageError(f"{path} is no file of tokens", expected=f"a file of at most {MAX_BYTES} bytes")
    if state.st_mode & _WRITABLE_BY_OTHERS:
        raise UsageError(f"others than its owner can add tokens to {path}",
                         got=f"mode {stat.S_IMODE(state.st_mode):04o}", expected="mode 0600",
                         hint=f"chmod 600 {path}, and see that every token in it is yours")  # fmt: skip


def _parsed(path: Path, content: bytes) -> TokenSet:
    try:
        found = _decoder.decode(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no file of tokens", got=error) from None
    if found.schema != SCHEMA:
        raise UsageError(f"{path} is of another version", got=f"schema {found.schema}", expected=f"schema {SCHEMA}")
    return found


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe has no other end to wait for
