"""Signing: one Ed25519 signature over the digest of a version's manifest, which in turn names every file's digest.

``signature.json`` is exactly what :func:`encode_signature` writes, to the byte: nothing in it can be altered unseen.
"""

from __future__ import annotations

import base64
import os
import stat
import tempfile
from pathlib import Path

import msgspec

from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import BundleError
from tailorbird.domain.files import reason, replacing
from tailorbird.domain.kit import decode_kit
from tailorbird.domain.manifest import decode_manifest
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.signing import keys, pem

SCHEMA = 1
"""Version of the signature's form; a reader refuses a larger one."""
MAX_SIGNATURE_BYTES = 64 << 10

BUNDLE, KIT = b"tailorbird bundle signature v1\0", b"tailorbird build kit signature v1\0"
"""Begin every signed message, so that no signature made for another purpose by the same key passes for ours."""
_NAME = bundle.SIGNATURE
_SIGN_AGAIN = "sign it again: tailorbird sign"


class BundleSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of ``signature.json``."""

    schema: int = SCHEMA
    algorithm: str = pem.ALGORITHM
    key: str
    """Id of the key that signed."""
    manifest: str
    """``sha256:<hex>`` of the bytes of ``manifest.json``."""
    signature: str
    """The 64 bytes of the signature, in base64."""

    @property
    def raw(self) -> bytes:
        """The signature's bytes."""
        return base64.b64decode(self.signature)


class _Header(msgspec.Struct):
    schema: int
    algorithm: str


# Made at import, see domain/manifest.py.
_header = msgspec.json.Decoder(_Header)
_signature = msgspec.json.Decoder(BundleSignature)


def message(manifest_digest: str, purpose: bytes = BUNDLE) -> bytes:
    """What is signed: a mark of the purpose, and the text of the manifest's digest."""
    return purpose + manifest_digest.encode("ascii", "backslashreplace")


def sign_version(version_dir: Path, key: keys.OwnKey | None = None) -> BundleSignature:
    """Sign a sealed version, in place of any signature that it has. Its files are not hashed again here.

    Args:
        version_dir: a sealed version.
        key: what to sign with; by default the one that :func:`tailorbird.repository.signing.keys.chosen` names.

    Raises:
        BundleError: there is no readable manifest, or the disk refused.
        UsageError: this machine has no such key.
    """
    own = key or keys.chosen()
    content = bundle.manifest_bytes(version_dir)
    decode_manifest(content)
    return _signed(version_dir, content, own, BUNDLE)


def sign_kit(folder: Path, key: keys.OwnKey) -> BundleSignature:
    """Sign a sealed build kit's folder; raises :class:`BundleError` as :func:`sign_version`."""
    content = bundle.manifest_bytes(folder)
    decode_kit(content)
    return _signed(folder, content, key, KIT)


def _signed(folder: Path, manifest: bytes, key: keys.OwnKey, purpose: bytes) -> BundleSignature:
    digest = digest_bytes(manifest)
    raw = key.private.sign(message(digest, purpose))
    made = BundleSignature(key=key.id, manifest=digest, signature=base64.b64encode(raw).decode())
    _write(folder, encode_signature(made))
    return made


def sign_bundle(path: Path, key: keys.OwnKey | None = None) -> BundleSignature:
    """Verify every file of a bundle, and sign it in place, whole or not at all.

    Args:
        path: a ``.engine`` file or a version's folder.
        key: as for :func:`sign_version`.

    Raises:
        BundleError: there is no bundle, a file is altered, or the disk refused.
        UsageError: this machine has no such key.
    """
    own = key or keys.chosen()
    if path.is_dir():
        bundle.verify(path)
        return sign_version(path, own)
    try:
        with tempfile.TemporaryDirectory(prefix="tailorbird-") as folder:
            version_dir = bundlefile.unpack(path, Path(folder, "bundle"))
            made = sign_version(version_dir, own)
            config = config_pbtxt(bundle.read_manifest(version_dir))
            bundlefile.pack(version_dir, path, config)  # verifies every file before it writes
            return made
    except OSError as error:
        hint = "see that the temporary folder has room; TMPDIR names another"
        raise BundleError(f"cannot sign {path}", got=reason(error), hint=hint) from error


def encode_signature(signature: BundleSignature) -> bytes:
    """The signature as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(signature), indent=2)


def decode_signature(data: bytes, place: str) -> BundleSignature:
    """Read ``signature.json``.

    Args:
        data: its bytes.
        place: the version, as errors name it.

    Raises:
        BundleError: the schema is newer, the algorithm unknown, or it is not what Tailorbird writes.
    """
    try:
        header = _header.decode(data)
        _check_header(header, place)
        found = _signature.decode(data)
        whole = len(found.raw) == 64 and encode_signature(found) == data
    except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError) as error:
        raise BundleError(f"'{_NAME}' of {place} cannot be read", got=error, hint=_SIGN_AGAIN) from None
    if not whole or base64.b64encode(found.raw).decode() != found.signature:
        raise BundleError(f"'{_NAME}' of {place} is not as it was written", expected="exactly what 'sign' writes",
                          hint=_SIGN_AGAIN)  # fmt: skip
    return found


def signature_bytes(version_dir: Path) -> bytes | None:
    """The bytes of a version's signature, or None without one.

    Raises:
        BundleError: it is a link, a device or too large.
    """
    try:
        with open(version_dir / _NAME, "rb", opener=_no_link) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise BundleError(f"'{_NAME}' of {version_dir} is not a plain file", hint=_SIGN_AGAIN)
            if state.st_size > MAX_SIGNATURE_BYTES:
                raise BundleError(f"'{_NAME}' of {version_dir} is too large", got=f"{state.st_size} bytes",
                                  expected=f"at most {MAX_SIGNATURE_BYTES} bytes", hint=_SIGN_AGAIN)  # fmt: skip
            return file.read(MAX_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:  # a link, for one
        what = f"'{_NAME}' of {version_dir} cannot be opened as a plain file"
        raise BundleError(what, got=reason(error), hint=_SIGN_AGAIN) from error


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # nor does it wait for a pipe's other end


def _check_header(header: _Header, place: str) -> None:
    upgrade = "upgrade Tailorbird: pip install --upgrade tailorbird"
    if header.schema > SCHEMA:
        raise BundleError(f"the schema of '{_NAME}' of {place} is newer than this Tailorbird", got=header.schema,
                          expected=SCHEMA, hint=upgrade)  # fmt: skip
    if header.schema < 1:
        raise BundleError(f"'{_NAME}' of {place} is of a schema that never was", got=header.schema, expected=SCHEMA,
                          hint=_SIGN_AGAIN)  # fmt: skip
    if header.algorithm != pem.ALGORITHM:
        raise BundleError(f"'{_NAME}' of {place} is of an unknown algorithm", got=ascii(header.algorithm),
                          expected=pem.ALGORITHM, hint=upgrade)  # fmt: skip


def _write(version_dir: Path, content: bytes) -> None:
    path = version_dir / _NAME
    try:
        mode = stat.S_IMODE((version_dir / bundle.MANIFEST).stat().st_mode)  # a published version's is read-only
        with replacing(path) as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
    except OSError as error:
        raise BundleError(f"cannot write '{_NAME}' of {version_dir}", got=reason(error),
                          hint="see that the version's folder can be written") from error  # fmt: skip
