"""Signatures for other tools: the sigstore bundle format, written by ``model-signing`` and verified by it and others.

Its key mode takes elliptic curves of NIST only, so the signature is made by the P-256 companion of the key that
signed the version. It is made only once our own signature has been verified, so it never says more than that one.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

from tailorbird.domain import bundlefile
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.files import reason, replacing
from tailorbird.repository.signing import keyfiles, keys
from tailorbird.repository.signing.trust import verified

_INSTALL = "pip install 'tailorbird[sigstore]'"


def export(source: Path, output: Path, own: keys.OwnKey) -> None:
    """Sign a version's content for other tools, once our own signature of it has been verified.

    Every file of the version is covered by its SHA-256, ``tailorbird/signature.json`` among them: after signing
    again, export again.

    Args:
        source: a version's folder, or a ``.engine`` file, which is unpacked for that.
        output: the file to write, outside the version's folder.
        own: the key that signed the version; its companion signs here.

    Raises:
        BundleError: the version is altered, or not signed by a key trusted here.
        UsageError: it was signed by another key, or the output lies inside it.
        TailorbirdError: ``model-signing`` is not installed or fails, or the disk refused.
    """
    signing = _package()
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise UsageError("the output lies inside the version", got=output, expected="a file outside it",
                         hint="a version holds no file that its manifest does not name")  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="tailorbird-") as folder:  # mode 0700: the companion lies in it
            version_dir = source if source.is_dir() else bundlefile.unpack(source, Path(folder, "bundle"))
            _check_signer(version_dir, own)
            signed = _signed(signing, version_dir, Path(folder), own)
        with replacing(output) as file:
            file.write(signed)
    except OSError as error:
        raise TailorbirdError(f"cannot export a signature to {output}", got=reason(error)) from error


def _check_signer(version_dir: Path, own: keys.OwnKey) -> None:
    signer = verified(version_dir).signer
    if signer is None or signer.key != own.id:
        expected = signer and f"{signer.key} ('{signer.name}')"
        hint = "name that key with --key; or sign it again, if you vouch for it: tailorbird sign"
        what = "the version is signed by another key than the one to export with"
        raise UsageError(what, got=own.id, expected=expected, hint=hint)


def _signed(signing: Any, version_dir: Path, folder: Path, own: keys.OwnKey) -> bytes:
    companion = keys.companion(own)
    key, signature = folder / "companion.pem", folder / "version.sig"
    keyfiles.write_private(key, companion.private_pem)  # the very bytes that were judged, encrypted if they were
    hashing = signing.hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)
    config = signing.signing.Config().set_hashing_config(hashing)
    try:
        config.use_elliptic_key_signer(private_key=key, password=companion.passphrase).sign(version_dir, signature)
    except Exception as error:  # whatever the package raises
        got = f"{type(error).__name__}: {error}"
        raise TailorbirdError("model-signing could not sign the version", got=got) from error
    return signature.read_bytes()


def _package() -> Any:
    """``model_signing``, loaded without its warnings; it needs pyOpenSSL and does not say so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("model_signing")
    except ImportError as error:
        raise TailorbirdError("model-signing is not installed", got=error, expected="model-signing and pyOpenSSL",
                              hint=f"install both: {_INSTALL}") from error  # fmt: skip
