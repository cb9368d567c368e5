"""The bundle: the tree of one engine version, sealed by its manifest.

::

    <version>/model.onnx | model.xml + model.bin | ...    what the runtime loads
    <version>/tailorbird/manifest.json                    the digest of every other file, and what is known
    <version>/tailorbird/build.jsonl, report.html         how it came to be
    <version>/tailorbird/signature.json                   over the manifest's digest, see repository/signing/sign.py

A manifest names every file, so an altered, missing or unexpected one is found and named. The one-file
form of the same tree is in ``domain/bundlefile.py``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tailorbird.domain.digest import digest_file
from tailorbird.domain.errors import BundleError
from tailorbird.domain.files import reason, sync_tree
from tailorbird.domain.manifest import Manifest, decode_manifest, encode_manifest

MANIFEST = "tailorbird/manifest.json"
SIGNATURE = "tailorbird/signature.json"
UNLISTED = frozenset({MANIFEST, SIGNATURE})
"""What a manifest cannot hold the digest of: itself, and a signature made over it."""

KEPT_KIT = "tailorbird/kit"
"""Where a version keeps the build kit that it can be built from again, if it does."""

MAX_MANIFEST_BYTES = 64 << 20
MAX_DEPTH = 8
_RESTORE = "restore it from its source, or build it again"

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_plain_name(name: str) -> bool:
    """Whether a name can be one part of a path anywhere: ASCII letters, digits, ``._-``; at most 128."""
    return _PART.fullmatch(name) is not None


def is_plain_path(path: str, depth: int = MAX_DEPTH) -> bool:
    """Whether a relative path is made of plain names only, and of at most ``depth`` of them."""
    parts = path.split("/")
    return len(parts) <= depth and all(map(is_plain_name, parts))


def seal(version_dir: Path, manifest: Manifest) -> Manifest:
    """Digest every file of a version, write its manifest, and bring all of it to the disk.

    Args:
        version_dir: a folder that holds the engine's files and what else belongs to the version.
        manifest: everything but ``files``, which is filled in.

    Returns:
        The manifest as written.

    Raises:
        BundleError: a file is no plain file or has no plain name, the engine's file is missing, the
            manifest would not read back, or the disk refused.
    """
    sealed = msgspec.structs.replace(manifest, files=digests(version_dir))
    _check_engine_file(sealed)
    data = encode_manifest(sealed)
    decode_manifest(data)  # what could not be read back (JSON has no infinity) must fail here, not at a load
    write_manifest(version_dir, data)
    return sealed


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder but its manifest and signature; raises as :func:`seal` does."""
    with _disk(f"seal {folder}"):
        names = sorted(_content(folder))
        for name in names:
            _check_name(name)
        return {name: digest_file(folder / name) for name in names}


def write_manifest(folder: Path, data: bytes) -> None:
    """Write a manifest's bytes, and bring the whole folder to the disk; raises :class:`BundleError` when it refuses."""
    with _disk(f"seal {folder}"):
        (folder / MANIFEST).parent.mkdir(exist_ok=True)
        (folder / MANIFEST).write_bytes(data)
        sync_tree(folder)


def read_manifest(version_dir: Path) -> Manifest:
    """The manifest of a version, its files unchecked; raises :class:`BundleError` without a readable one."""
    return decode_manifest(manifest_bytes(version_dir))


def manifest_bytes(version_dir: Path) -> bytes:
    """The bytes of a version's manifest; raises :class:`BundleError` when there is none, or too large a one."""
    path = version_dir / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{version_dir} has no manifest", expected=MANIFEST, hint=_RESTORE)
    with _disk(f"read {path}"):
        size = path.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            expected = f"at most {MAX_MANIFEST_BYTES} bytes"
            raise BundleError(f"the manifest {path} is too large", got=f"{size} bytes", expected=expected)
        return path.read_bytes()


def verify(version_dir: Path) -> Manifest:
    """The manifest of a version, once every file is found to be what it says.

    Raises:
        BundleError: a file is altered, missing or unexpected (the file is named, with both digests), or
            the manifest cannot be read.
    """
    manifest = read_manifest(version_dir)
    verify_files(version_dir, manifest)
    return manifest


def verify_files(version_dir: Path, manifest: Manifest) -> None:
    """Hold every file of a version against a manifest that was read already; raises as :func:`verify` does."""
    check_files(version_dir, manifest.files)
    _check_engine_file(manifest)


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Hold every file of a folder but its manifest and signature against digests; raises as :func:`verify` does."""
    with _disk(f"verify {folder}"):
        found = set(_content(folder))
        _check_names(folder, found, set(files))
        for name, expected in sorted(files.items()):
            _check_digest(folder, name, expected)


def _check_names(version_dir: Path, found: set[str], listed: set[str]) -> None:
    for name in sorted(found - listed):
        what = f"{version_dir} holds a file that its manifest does not name"
        raise BundleError(what, got=ascii(name), expected="no such file", hint=f"remove it, or {_RESTORE}")
    for name in sorted(listed - found):
        what = f"{version_dir} lacks a file that its manifest names"
        raise BundleError(what, got="no such file", expected=ascii(name), hint=_RESTORE)


def _check_digest(version_dir: Path, name: str, expected: str) -> None:
    got = digest_file(version_dir / name)
    if got != expected:
        raise BundleError(f"'{name}' of {version_dir} was altered", got=got, expected=expected, hint=_RESTORE)


def _check_engine_file(manifest: Manifest) -> None:
    if manifest.format.filename not in manifest.files:
        found = ", ".join(sorted(manifest.files)) or "no file"
        raise BundleError("the version lacks its engine", got=found, expected=ascii(manifest.format.filename))


def _check_name(name: str) -> None:
    if not is_plain_path(name):
        expected = "ASCII letters, digits, '.', '_' and '-', starting with a letter or digit"
        raise BundleError("a file's name cannot travel", got=ascii(name), expected=expected)


def _content(version_dir: Path) -> Iterator[str]:
    return (name for name in _walk(version_dir, "") if name not in UNLISTED)


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    if prefix.count("/") >= MAX_DEPTH:
        raise BundleError(f"{folder} is nested too deep", expected=f"at most {MAX_DEPTH} levels")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
            else:
                what = f"{prefix + entry.name!a} is not a plain file"
                raise BundleError(what, got="a link or a device", hint="put the file itself in its place")


@contextmanager
def _disk(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot {action}", got=reason(error)) from error
