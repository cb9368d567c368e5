"""The bundle as one file: an uncompressed zip, ``NAME.engine``, with the tree of a model repository.

::

    <model>/config.pbtxt
    <model>/1/...           the version, as domain/bundle.py describes it

Written so that a kill leaves the old file or the new one; read as a stranger's: nothing in it is
believed before it is checked.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tailorbird.domain import archive
from tailorbird.domain.bundle import MANIFEST, MAX_MANIFEST_BYTES, is_plain_name, read_manifest, verify
from tailorbird.domain.errors import BundleError
from tailorbird.domain.manifest import Manifest, decode_manifest

SUFFIX = ".engine"
CONFIG = "config.pbtxt"
VERSION = "1"
"""The version's folder inside the file; a repository gives it another number."""


def pack(version_dir: Path, out: Path, config: bytes) -> None:
    """Write a version as one file, whole or not at all.

    Args:
        version_dir: a sealed version; it is verified first.
        out: where to write; an existing file is replaced.
        config: the text of the model's ``config.pbtxt``.

    Raises:
        BundleError: the version does not verify, its model has no plain name, or the disk refused.
    """
    model = verify(version_dir).model
    if not is_plain_name(model):
        raise BundleError("the manifest's model name cannot be a folder", got=ascii(model))
    with archive.writing(out) as file:
        archive.add(file, f"{model}/{CONFIG}", io.BytesIO(config), len(config))
        archive.add_tree(file, f"{model}/{VERSION}", version_dir)


def manifest_of(source: Path) -> Manifest:
    """The manifest of a ``.engine`` file or of a version's folder, nothing else of it checked.

    Raises:
        BundleError: there is no bundle, or its manifest cannot be read.
    """
    if source.is_dir():
        return read_manifest(source)
    return decode_manifest(entries_of(source, {MANIFEST: MAX_MANIFEST_BYTES})[MANIFEST])


def entries_of(bundle_file: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The bytes of some files of a ``.engine`` file, read without touching the others.

    Args:
        bundle_file: a ``.engine`` file.
        limits: the most bytes of each file, by path relative to the version.

    Returns:
        Bytes by path; of the files asked for, those that there are. A manifest there always is.

    Raises:
        BundleError: the file is not a whole bundle, or a file in it is too large.
    """
    with archive.opened(bundle_file) as file:
        model = _one_model(bundle_file, archive.checked(bundle_file, file.infolist()))
        known = {info.filename: info for info in file.infolist()}
        wanted = {name: known.get(f"{model}/{VERSION}/{name}") for name in limits}
        for name, info in wanted.items():
            if info and info.file_size > limits[name]:
                expected = f"at most {limits[name]} bytes"
                raise archive.refused(bundle_file, f"its '{name}' is too large", f"{info.file_size} bytes", expected)
        return {name: b"".join(archive.chunks(bundle_file, file, info)) for name, info in wanted.items() if info}


def unpack(bundle_file: Path, into: Path) -> Path:
    """Unpack a stranger's bundle. Digests are not checked here: :func:`tailorbird.domain.bundle.verify` does.

    Args:
        bundle_file: a ``.engine`` file.
        into: a new or empty folder on a disk with room for the file's size.

    Returns:
        The version's folder, below ``into``.

    Raises:
        BundleError: the file is not a whole bundle, or an entry is one that Tailorbird never writes.
        OSError: ``into`` could not be written.
    """
    model = archive.unpack(bundle_file, into, partial(_one_model, bundle_file))
    return into / model / VERSION


def _one_model(bundle_file: Path, names: Sequence[str]) -> str:
    """The one model of a bundle, none of whose entries can do harm."""
    model = names[0].partition("/")[0] if names else ""
    for name in names:
        if name != f"{model}/{CONFIG}" and not name.startswith(f"{model}/{VERSION}/"):
            expected = f"{model}/{CONFIG} and files in {model}/{VERSION}"
            raise archive.refused(bundle_file, "a file lies outside the version", name, expected)
    if (expected := f"{model or '<model>'}/{VERSION}/{MANIFEST}") not in names:
        raise archive.refused(bundle_file, "it has no manifest", f"{len(names)} files", expected)
    return model
