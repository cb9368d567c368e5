"""A client of a server's door for administration, over TCP or a Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.files import reason

UNIX = "unix:"
TOKEN = "TAILORBIRD_TOKEN"
_TOKEN = re.compile("[!-~]+")


class AdminClient:
    """One server, as its administrator sees it.

    Args:
        url: ``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:PATH``.
        token: sent where there is one.
        ca: the authorities of an https server, in PEM; the system's without it.
        own: a certificate to show to an https server.
        timeout: seconds for one answer; loading a model takes its time.

    Raises:
        UsageError: the address is none, or the certificates are not what they should be.
    """

    def __init__(
        self, url: str, token: str = "", ca: Path | None = None, own: Own | None = None, timeout: float = 600.0
    ) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._connection = _connection(url, ca, own, timeout)

    def load(self, model: str) -> None:
        """Load a model's version that should serve; returns when it does."""
        self._ask("POST", f"/v2/repository/models/{quote(model, safe='')}/load", {})

    def unload(self, model: str) -> None:
        """Put a model away, once what it accepted is answered."""
        self._ask("POST", f"/v2/repository/models/{quote(model, safe='')}/unload", {})

    def index(self) -> Any:
        """Every version and its state."""
        return self._ask("POST", "/v2/repository/index", {})

    def rollouts(self) -> Any:
        """Who answers for each model, and how canaries do."""
        return self._ask("GET", "/v2/rollouts")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, content, self._headers)
            answer = self._connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            words = reason(error) if isinstance(error, OSError) else str(error)
            raise TailorbirdError(f"no answer from {self._url}", got=words or type(error).__name__,
                                  hint="is it the door of 'tailorbird serve --admin'?") from None  # fmt: skip
        finally:
            self._connection.close()
        return _read(status, text)


class Own(msgspec.Struct, frozen=True):
    """A client's certificate and its private key, in PEM; they may be in one file."""

    certificate: Path
    key: Path


def own_certificate(certificate: Path | None, key: Path | None) -> Own | None:
    """The certificate to show, if any; raises :class:`UsageError` for a key alone."""
    if certificate is None:
        if key is not None:
            raise UsageError("--key is that of no certificate", hint="name the certificate with --cert")
        return None
    return Own(certificate, key or certificate)


def token_of(file: Path | None) -> str:
    """The token in a file, or else in the environment; empty where there is none."""
    if file is None:
        return _checked(os.environ.get(TOKEN, "").strip(), f"${TOKEN}")
    try:
        return _checked(file.read_text(encoding="ascii").strip(), str(file))
    except (OSError, UnicodeError) as error:
        words = reason(error) if isinstance(error, OSError) else "no token"
        raise UsageError(f"cannot read the token in {file}", got=words) from None


def _checked(token: str, place: str) -> str:
    """A token goes into a header: a line's end or a blank in it would end it there."""
    if token and not _TOKEN.fullmatch(token):
        raise UsageError(f"there is no token in {place}", expected="one token, and nothing else")
    return token


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(url: str, ca: Path | None, own: Own | None, timeout: float) -> http.client.HTTPConnection:
    if url.startswith(UNIX):
        return _Unix(url.removeprefix(UNIX).removeprefix("//"), timeout)
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("http", "https"):
        raise UsageError("no address of a server", got=repr(url), expected="http://HOST:PORT, https:// or unix:PATH")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=_context(ca, own))
    return http.client.HTTPConnection(host, port, timeout=timeout)


def _context(ca: Path | None, own: Own | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UsageError(f"no certificates in {ca}", got=reason(error)) from None
    if own is not None:
        _load_own(context, own)
    return context


def _load_own(context: ssl.SSLContext, own: Own) -> None:
    try:
        context.load_cert_chain(own.certificate, own.key, password=str)  # without it OpenSSL asks on the terminal
    except OSError as error:  # which OpenSSL's errors are, too
        raise UsageError(f"no certificate to show in {own.certificate} and {own.key}", got=reason(error),
                         expected="a certificate and its key in PEM, without a password") from None  # fmt: skip


def _read(status: int, text: bytes) -> Any:
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        found = {}
    if 200 <= status < 300:
        return found
    said = found.get("error") if isinstance(found, dict) else None
    raise TailorbirdError(str(said) if said else "the server refused", got=None if said else f"status {status}")
