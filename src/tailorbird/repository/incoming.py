"""A bundle on its way in: a private copy of it, and whether the repository has it already."""

from __future__ import annotations

import shutil
from pathlib import Path

from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.files import sync_tree


def copied(source: Path, place: Path) -> Path:
    """A private copy of a bundle's version. What was verified before copying is to be verified again after.

    Raises:
        BundleError: the bundle is incomplete, altered or foreign.
        OSError: there is no room for it.
    """
    if not source.is_dir():
        return bundlefile.unpack(source, place / ".unpacked")
    names = (*bundle.verify(source).files, *sorted(bundle.UNLISTED))
    copy = place / ".copied"
    for name in names:
        if (source / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)
    return copy


def settled(version_dir: Path, staged: Path) -> Path:
    """The version moved into a staged model folder, its files read-only and on the disk; raises :class:`OSError`."""
    staged.mkdir()
    settled_dir = version_dir.rename(staged / bundlefile.VERSION)
    for path in settled_dir.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    sync_tree(staged)
    return settled_dir


def is_same(version_dir: Path, manifest: bytes, signed: bool) -> bool:
    """Whether a bundle is the version with this manifest, so that publishing it again would add nothing.

    Args:
        version_dir: the bundle.
        manifest: the version's manifest.
        signed: whether the version has a signature; where it has none and the bundle does, that is news.
    """
    news = (version_dir / bundle.SIGNATURE).exists() and not signed
    return not news and (version_dir / bundle.MANIFEST).read_bytes() == manifest
