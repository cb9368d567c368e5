"""TLS: a certificate, its key, and whose clients' certificates are let in; read again when the files change."""

from __future__ import annotations

import os
import ssl
import stat
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.errors import UsageError
from tailorbird.domain.files import reason
from tailorbird.service.faults import Forbidden
from tailorbird.service.observe import journal

LOOK_SECONDS = 1.0
MAX_BYTES = 4 << 20


class TlsFiles(msgspec.Struct, frozen=True):
    """Files in PEM."""

    certificate: Path
    """The server's, and after it those between it and the root."""
    key: Path
    """Its private key, without a password."""
    client_authorities: Path | None = None
    """Whose clients are let in; with it each client must show a certificate."""


class Material(msgspec.Struct, frozen=True):
    """What the files held when they fitted each other."""

    certificate: bytes
    key: bytes
    client_authorities: bytes | None
    context: ssl.SSLContext


class ClientNames:
    """Which of the clients with a good certificate are let in.

    Args:
        patterns: of the shell; one of a certificate's names must match one of them.
    """

    def __init__(self, patterns: Iterable[str] = ("*",)) -> None:
        self._patterns = tuple(patterns)

    def match(self, names: tuple[str, ...]) -> str:
        """The name that is let in; raises :class:`Forbidden`."""
        for name in names:
            if name and any(fnmatchcase(name, pattern) for pattern in self._patterns):
                return name
        raise Forbidden("the client's certificate is not for this server", why="certificate")


def load(files: TlsFiles) -> Material:
    """Read the files, and see that they fit.

    Raises:
        UsageError: a file is missing, others may read the key, or the files are no PEM or do not fit each other.
    """
    certificate = _read("certificate", files.certificate)
    key = _read("private key", files.key, private=True)
    context = _context()
    _load_pair(context, files)
    authorities = None
    if files.client_authorities is not None:
        authorities = _read("client authorities", files.client_authorities)
        _load_authorities(context, files.client_authorities, authorities)
    return Material(certificate, key, authorities, context)


class Tls:
    """The TLS of one server, which follows its files. While they do not fit, the last that did are used.

    Args:
        files: where they are.
        clock: seconds, for when to look again.

    Raises:
        UsageError: as :func:`load`.
    """

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._looked = clock()
        self._state = self._states()
        self._material = load(files)

    @property
    def asks_certificates(self) -> bool:
        """Whether each client must show a certificate."""
        return self._files.client_authorities is not None

    def material(self) -> Material:
        """What to shake the next client's hand with. Looks at the files once a second at most; any thread."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        return self._material

    def context(self, has_room: Callable[[int], bool] = lambda _: True) -> Following:
        """A context for a listener, each of whose handshakes uses :meth:`material`.

        Args:
            has_room: told how many handshakes are under way, whether one more may begin. A connection that may not
                is closed without a word, as none can be said before the handshake.
        """
        return Following(self, has_room)

    def _look(self) -> None:
        state = self._states()
        if state == self._state:
            return
        self._state = state
        try:
            self._material = load(self._files)
        except UsageError as error:
            journal.record("new TLS files do not fit: the old ones stay", level="error", reason=error.message)
        else:
            journal.record("TLS files read again", certificate=str(self._files.certificate))

    def _states(self) -> tuple[tuple[int, ...] | None, ...]:
        files = self._files
        return tuple(map(_state, filter(None, (files.certificate, files.key, files.client_authorities))))


class Following(ssl.SSLContext):
    """A context whose every connection is made by the present one: so authorities that were removed are gone, too.

    It counts the handshakes under way: of one that fails the protocol behind it never hears.
    """

    _tls: Tls
    _has_room: Callable[[int], bool]
    _shaking: weakref.WeakSet[ssl.SSLObject]

    def __new__(cls, *_: Any) -> Following:  # noqa: D102 # as of any context
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, tls: Tls, has_room: Callable[[int], bool]) -> None:
        super().__init__()
        self._tls = tls
        self._has_room = has_room
        self._shaking = weakref.WeakSet()

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """A handshake begins; raises :class:`ssl.SSLError`, which the event loop takes in silence, for want of room."""
        if not self._has_room(len(self._shaking)):
            raise ssl.SSLError("too many connections")
        made = self._tls.material().context.wrap_bio(*args, **named)
        self._shaking.add(made)
        return made

    def shaken(self, made: ssl.SSLObject) -> None:
        """A handshake is over: from now on its connection is counted."""
        self._shaking.discard(made)


def names_of(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names in a client's certificate, as :meth:`ssl.SSLObject.getpeercert` tells it; the common name first."""
    if not certificate:
        return ()
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    common = [value for kind, value in subject if kind == "commonName"]
    return (*common, *(value for _, value in certificate.get("subjectAltName", ()) if isinstance(value, str)))


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"the key {files.key} is not that of the certificate {files.certificate}") from None
        raise UsageError(f"no TLS with {files.certificate} and {files.key}", got=error.reason or "no PEM",
                         expected="a certificate and its private key in PEM, without a password") from None  # fmt: skip
    except OSError as error:
        raise UsageError(f"cannot read {files.certificate} or {files.key}", got=reason(error)) from None


def _no_password() -> str:
    return ""  # without it OpenSSL would ask on the terminal


def _load_authorities(context: ssl.SSLContext, path: Path, content: bytes) -> None:
    try:
        context.load_verify_locations(cadata=content.decode("ascii", "ignore"))  # comments may have any letters
    except (ssl.SSLError, ValueError):
        raise UsageError(f"no certificates in {path}", expected="those of the clients' authorities in PEM") from None
    context.verify_mode = ssl.CERT_REQUIRED


def _read(what: str, path: Path, *, private: bool = False) -> bytes:
    try:
        with open(path, "rb", opener=_at_once) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
                raise UsageError(f"{path} is no {what}", expected=f"a file of at most {MAX_BYTES} bytes")
            if private and state.st_mode & stat.S_IRWXO:
                raise UsageError(f"everybody on this machine can use the private key {path}",
                                 got=f"mode {stat.S_IMODE(state.st_mode):04o}", expected="mode 0600 or 0640",
                                 hint=f"chmod 600 {path}; in Kubernetes the volume's defaultMode")  # fmt: skip
            return file.read(MAX_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}", got=reason(error)) from None


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
