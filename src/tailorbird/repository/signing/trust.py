"""Trust: a version is verified file by file, and its signature against the keys trusted on this machine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import BundleError
from tailorbird.domain.kit import Kit, decode_kit, verify_kit
from tailorbird.domain.manifest import Manifest, decode_manifest
from tailorbird.repository.signing import keys, sign

_RESTORE = "restore it from its source, or build it again"
_EXPERIMENT = "for a local experiment allow it: --allow-unsigned"


class Signer(msgspec.Struct, frozen=True):
    """Whose signature a version carries."""

    key: str
    """The key's id."""
    name: str
    """The name it is trusted by here."""


class Verified(msgspec.Struct, frozen=True):
    """A version whose every file is what its manifest says."""

    manifest: Manifest
    signer: Signer | None
    """None only where unsigned bundles were explicitly allowed."""
    digest: str = ""
    """Of the manifest's bytes as they were read: what the signature is over."""


def verified(version_dir: Path, *, allow_unsigned: bool = False) -> Verified:
    """Verify a version's signature and its files.

    Each is read once: the bytes of the manifest that are digested and held against the signature are those
    that are decoded. The signature is checked first, because that is quick and tells which of the two papers
    was altered.

    Args:
        version_dir: a sealed version.
        allow_unsigned: for local experiments: a missing signature, or one by a key not trusted here, is let pass.

    Raises:
        BundleError: a file is altered, missing or unexpected; the version is unsigned, signed by a key that is not
            trusted here, or its signature is not valid.
        UsageError: a file among the trusted keys is none.
    """
    content = bundle.manifest_bytes(version_dir)
    signer = _signer(sign.signature_bytes(version_dir), content, str(version_dir), allow_unsigned)
    manifest = decode_manifest(content)
    bundle.verify_files(version_dir, manifest)
    return Verified(manifest, signer, digest_bytes(content))


def verified_kit(folder: Path) -> Kit:
    """Verify a build kit's signature and its files; there is no way around the signature.

    Args:
        folder: an unpacked kit.

    Raises:
        BundleError: a file is altered, missing or unexpected; the kit is unsigned, signed by a key that is not trusted
            here, or its signature is not valid.
    """
    content = bundle.manifest_bytes(folder)
    _signer(sign.signature_bytes(folder), content, str(folder), allow_unsigned=False, purpose=sign.KIT)
    return _intact(folder, content)


def kept_kit(version: Path) -> Kit | None:
    """The build kit that a verified version keeps, whose digests the version's own manifest holds; None without.

    Raises:
        BundleError: it cannot be read.
    """
    folder = version / bundle.KEPT_KIT
    return _intact(folder, bundle.manifest_bytes(folder)) if folder.is_dir() else None


def _intact(folder: Path, content: bytes) -> Kit:
    manifest = decode_kit(content)
    verify_kit(folder, manifest)
    return Kit(folder, manifest, digest_bytes(content))


def signer_of(source: Path) -> Signer | None:
    """Who signed a bundle, without a look at its engine: the manifest and the signature alone are read.

    Args:
        source: a ``.engine`` file or a version's folder.

    Returns:
        The signer, or None where there is no signature.

    Raises:
        BundleError: there is no bundle; or the signature is not valid, over another manifest, or by a key that
            is not trusted here.
        UsageError: a file among the trusted keys is none.
    """
    signature, manifest = _papers(source)
    return None if signature is None else _signer(signature, manifest, str(source), allow_unsigned=False)


def _papers(source: Path) -> tuple[bytes | None, bytes]:
    if source.is_dir():
        return sign.signature_bytes(source), bundle.manifest_bytes(source)
    limits = {bundle.SIGNATURE: sign.MAX_SIGNATURE_BYTES, bundle.MANIFEST: bundle.MAX_MANIFEST_BYTES}
    found = bundlefile.entries_of(source, limits)
    return found.get(bundle.SIGNATURE), found[bundle.MANIFEST]


def _signer(
    data: bytes | None, manifest: bytes, place: str, allow_unsigned: bool, purpose: bytes = sign.BUNDLE
) -> Signer | None:
    if data is None:
        if allow_unsigned:
            return None
        raise BundleError(f"{place} is not signed", got=f"no '{bundle.SIGNATURE}'",
                          expected="a signature by a trusted key",
                          hint=f"sign it, if you know where it is from: tailorbird sign; {_EXPERIMENT}")  # fmt: skip
    signature = sign.decode_signature(data, place)
    key = keys.find_trusted(signature.key)
    if key is None and not allow_unsigned:
        raise BundleError(f"'{bundle.SIGNATURE}' of {place} is by a key that is not trusted here", got=signature.key,
                          expected=_trusted_ids(),
                          hint=f"if you know whose it is: tailorbird key trust FILE; {_EXPERIMENT}")  # fmt: skip
    if key and not key.public.verifies(signature.raw, sign.message(signature.manifest, purpose)):
        raise BundleError(f"'{bundle.SIGNATURE}' of {place} is not valid", got=f"not a signature by '{key.name}'",
                          expected=f"one by {key.id}", hint=_RESTORE)  # fmt: skip
    _check_same(signature.manifest, digest_bytes(manifest), place)
    return Signer(key.id, key.name) if key else None


def _check_same(signed: str, got: str, place: str) -> None:
    if signed != got:
        what = f"'{bundle.MANIFEST}' of {place} is not what was signed: it was altered, or the signature is another's"
        raise BundleError(what, got=got, expected=signed, hint=_RESTORE)


def _trusted_ids() -> str:
    return ", ".join(f"{key.id} ('{key.name}')" for key in keys.trusted()) or "a trusted key; none is, so far"
