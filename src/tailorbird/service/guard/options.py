"""What can be set about the doors of a server."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.domain.errors import UsageError
from tailorbird.service.guard.tls import TlsFiles


class Guarding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is let in, how connections are encrypted, and where the server is administered."""

    tokens: Path | None = None
    """The file whose tokens are let in; None asks for none."""
    open_health: bool = False
    """Whether live and ready are told without a token."""
    tls: TlsFiles | None = None
    """None leaves connections in the clear."""
    client_names: tuple[str, ...] = ()
    """Patterns of names in clients' certificates; empty for all that the authorities signed."""
    admin: str = ""
    """``PORT``, ``HOST:PORT`` or ``unix:PATH`` of the door for administration; empty for none."""
    admin_on_public: bool = False
    """Whether the public port administers, too."""

    def __post_init__(self) -> None:
        if self.client_names and (self.tls is None or self.tls.client_authorities is None):
            raise UsageError("--tls-client-name needs --tls-client-ca", hint="name whose certificates are let in")
        if self.open_health and self.tokens is None:
            raise UsageError("--open-health needs --tokens", hint="without tokens health is open as it is")


def tls_files(certificate: str, key: str, client_authorities: str) -> TlsFiles | None:
    """The files by their flags; empty for none.

    Raises:
        UsageError: one is named without the other that it needs.
    """
    if not (certificate or key or client_authorities):
        return None
    if not (certificate and key):
        raise UsageError("TLS needs a certificate and its key", expected="--tls-cert and --tls-key")
    return TlsFiles(Path(certificate), Path(key), Path(client_authorities) if client_authorities else None)
