"""PEM keys: the border to the ``cryptography`` package. Ed25519 signs bundles; P-256 only what other tools verify."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from tailorbird.domain.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

PASSPHRASE = "TAILORBIRD_KEY_PASSPHRASE"
"""Names the environment's passphrase of encrypted private keys."""
ALGORITHM = "ed25519"

_PRIVATE_MARK = b"PRIVATE KEY-----"
_LOCKED_MARK = b"ENCRYPTED PRIVATE KEY-----"
_HINT = "make one with 'tailorbird key new'"


class PublicKey(msgspec.Struct, frozen=True):
    """An Ed25519 public key: its 32 bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """``ed25519:`` and the SHA-256 of the 32 bytes, in hexadecimal."""
        return f"{ALGORITHM}:{hashlib.sha256(self.raw).hexdigest()}"

    @property
    def pem(self) -> str:
        """The key as text to give to others."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return _public_pem(Ed25519PublicKey.from_public_bytes(self.raw))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature of a message was made by this key's private half."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """An Ed25519 private key; its repr shows the public half only."""

    public: PublicKey
    _key: Ed25519PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature (RFC 8032)."""
        return self._key.sign(message)


@dataclass(frozen=True)
class Companion:
    """A P-256 key, as other tools want it."""

    private_pem: bytes = field(repr=False)
    public_pem: str
    passphrase: bytes | None = field(repr=False)
    """None where the private PEM is not encrypted."""


def new_private() -> bytes:
    """A new Ed25519 private key as PEM, PKCS #8; encrypted when the environment holds a passphrase."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _private_pem(Ed25519PrivateKey.generate())


def new_p256() -> bytes:
    """A new private key on the curve P-256 as PEM, PKCS #8; encrypted when the environment holds a passphrase."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _private_pem(ec.generate_private_key(ec.SECP256R1()))


def read_private(pem: bytes, name: str) -> PrivateKey:
    """Read a private key.

    Args:
        pem: PEM, PKCS #8, encrypted or not.
        name: what errors call it.

    Raises:
        UsageError: it is no Ed25519 private key, or encrypted and the passphrase is missing or wrong.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _decoded_private(pem, name)
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_algorithm(name, key, "an Ed25519 private key")
    return PrivateKey(PublicKey(key.public_key().public_bytes_raw()), key)


def read_p256(pem: bytes, name: str) -> Companion:
    """A P-256 private key.

    Raises:
        UsageError: as :func:`read_private`.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    key = _decoded_private(pem, name)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _other_algorithm(name, key, "a private key on the curve P-256")
    return Companion(pem, _public_pem(key.public_key()), _passphrase() if _LOCKED_MARK in pem else None)


def read_public(pem: bytes, name: str) -> PublicKey:
    """Read a public key.

    Raises:
        UsageError: it is a private key, of another algorithm, or no PEM key at all.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if _PRIVATE_MARK in pem:
        hint = "never give a private key away; 'tailorbird key show NAME' prints the public half"
        raise UsageError(f"{name} holds a private key", expected="the public half alone", hint=hint)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{name} is no public key", expected="PEM, as 'tailorbird key show' prints it") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _other_algorithm(name, key, "an Ed25519 public key")
    return PublicKey(key.public_bytes_raw())


def _decoded_private(pem: bytes, name: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, None)
    except TypeError:
        pass  # encrypted
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{name} is no private key", expected="PEM, PKCS #8", hint=_HINT) from None
    passphrase = _passphrase()
    if not passphrase:
        raise UsageError(f"{name} is encrypted", expected=f"its passphrase in ${PASSPHRASE}")
    try:
        return load_pem_private_key(pem, passphrase)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{name} cannot be decrypted", expected=f"its own passphrase in ${PASSPHRASE}") from None


def _passphrase() -> bytes:
    return os.environb.get(PASSPHRASE.encode(), b"")


def _private_pem(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    passphrase = _passphrase()
    lock = form.BestAvailableEncryption(passphrase) if passphrase else form.NoEncryption()
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock)


def _public_pem(key: PublicKeyTypes) -> str:
    from cryptography.hazmat.primitives import serialization as form

    return key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def _other_algorithm(name: str, key: PrivateKeyTypes | PublicKeyTypes, expected: str) -> UsageError:
    kind = type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")
    return UsageError(f"{name} is a key of another kind", got=kind, expected=expected, hint=_HINT)
