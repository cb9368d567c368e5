"""The local repository: versions of models in a folder. A version appears whole or not at all, and stays.

A publish copies into a hidden folder of the same file system, verifies the copy, and renames it into
place; a commit lock puts the renames of several publishers in turn. What a killed publish left is
swept by the next.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.errors import BundleError, ModelNotFound, RepositoryError, VersionNotFound
from tailorbird.domain.files import reason, replacing, sync, sync_tree
from tailorbird.domain.manifest import Manifest
from tailorbird.repository import layout
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.staging import locked, staging, sweep

_PUBLISH_HINT = "nothing half-published is left; see that the repository's disk has room and can be written"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


class VersionCheck(msgspec.Struct, frozen=True):
    """What became of verifying one version: a problem's whole text, or none."""

    model: str
    version: int
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether every file is what the manifest says."""
        return not self.problem


class LocalRepository:
    """A model repository in a folder. Safe for many processes; holds nothing open."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> tuple[str, ...]:
        """Names of all models that have a version; raises :class:`RepositoryError` without a repository."""
        with self._disk("read the repository"):
            return layout.models_in(self.root)

    def versions(self, model: str) -> tuple[int, ...]:
        """Versions of a model, ascending; raises :class:`ModelNotFound`, or :class:`UsageError`."""
        known = self.models()
        if model not in known:
            raise ModelNotFound(layout.model_name(model), known)
        with self._disk(f"read model '{model}'"):
            return layout.versions_in(layout.model_dir(self.root, model))

    def version_dir(self, model: str, version: int | None = None) -> Path:
        """The folder of a version, the latest when none is named.

        Raises:
            ModelNotFound: the repository has no such model.
            VersionNotFound: the model has no such version.
        """
        known = self.versions(model)
        chosen = known[-1] if version is None else version
        if chosen not in known:
            raise VersionNotFound(model, version, known)
        return layout.version_dir(self.root, model, chosen)

    def manifest(self, model: str, version: int | None = None) -> Manifest:
        """The manifest of a version, its files unchecked.

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
            BundleError: the manifest cannot be read.
        """
        return bundle.read_manifest(self.version_dir(model, version))

    def publish(self, source: Path, model: str | None = None) -> int:
        """Add a bundle as the next version of a model.

        Args:
            source: a ``.engine`` file or a version folder; it is read only.
            model: the name to publish under; the manifest's own when None.

        Returns:
            The new version's number.

        Raises:
            BundleError: the bundle is incomplete, altered or foreign.
            UsageError: the model's name is not one.
            RepositoryError: the repository could not be written; nothing of the bundle is visible then.
        """
        if model is not None:
            layout.model_name(model)
        with self._disk("publish", _PUBLISH_HINT):
            sweep(layout.incoming_dir(self.root), self._refresh_config)
            with staging(layout.incoming_dir(self.root)) as place:
                version_dir = _copied(source, place)
                manifest = bundle.verify(version_dir)
                name = layout.model_name(model or manifest.model)
                return self._commit(_prepared(version_dir, manifest, name, place), name)

    def verify(self, model: str | None = None, version: int | None = None) -> tuple[VersionCheck, ...]:
        """Check every file of one version, of all versions of a model, or of the whole repository.

        Raises:
            ModelNotFound: the repository has no such model.
            VersionNotFound: the model has no such version.
        """
        if model is not None and version is not None:
            return (_checked(self.version_dir(model, version), model, version),)
        models = self.models() if model is None else (model,)
        found = ((name, number) for name in models for number in self.versions(name))
        return tuple(_checked(layout.version_dir(self.root, name, n), name, n) for name, n in found)

    def _commit(self, staged: Path, model: str) -> int:
        """Make a staged model folder, with its version 1, visible under the next free number."""
        target = layout.model_dir(self.root, model)
        with locked(layout.commit_lock(self.root)):
            if _renamed(staged, target):  # the first version: it and its config.pbtxt appear at once
                sync(self.root)
                return 1
            number = _claimed(staged / bundlefile.VERSION, target)
            sync(target)
            (staged / bundlefile.CONFIG).replace(target / bundlefile.CONFIG)
            sync(target)
            return number

    def _refresh_config(self, model: str) -> None:
        """Write the latest version's ``config.pbtxt``: a killed publish may have left an older version's."""
        if model not in layout.models_in(self.root):
            return
        with locked(layout.commit_lock(self.root)):
            try:
                text = config_pbtxt(self.manifest(model), model)
            except BundleError:  # the latest version is not ours to describe
                return
            with replacing(layout.model_dir(self.root, model) / bundlefile.CONFIG) as file:
                file.write(text)

    @contextmanager
    def _disk(self, action: str, hint: str | None = None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            known = self.root.is_dir()
            what = f"cannot {action} in {self.root}" if known else f"there is no repository at {self.root}"
            raise RepositoryError(what, got=reason(error), hint=hint or "publish a bundle there first") from error
        except OSError as error:
            raise RepositoryError(f"cannot {action} in {self.root}", got=reason(error), hint=hint) from error


def _copied(source: Path, place: Path) -> Path:
    """A private copy of a bundle's version. What was verified before copying is verified again after."""
    if not source.is_dir():
        return bundlefile.unpack(source, place / ".unpacked")
    names = (*bundle.verify(source).files, *sorted(bundle.UNLISTED))
    copy = place / ".copied"
    for name in names:
        if (source / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)
    return copy


def _prepared(version_dir: Path, manifest: Manifest, model: str, place: Path) -> Path:
    """The model folder as it shall appear, read-only files and all, on the disk.

    ``config.pbtxt`` is made anew: a stranger's could name libraries to load.
    """
    staged = place / model
    staged.mkdir()
    version_dir.rename(staged / bundlefile.VERSION)
    (staged / bundlefile.CONFIG).write_bytes(config_pbtxt(manifest, model))
    for path in (staged / bundlefile.VERSION).rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    sync_tree(staged)
    return staged


def _claimed(version_dir: Path, target: Path) -> int:
    number = max(layout.versions_in(target), default=0) + 1
    while not _renamed(version_dir, target / str(number)):
        number += 1
    return number


def _renamed(source: Path, target: Path) -> bool:
    """Rename a folder; False when the place is taken."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _checked(version_dir: Path, model: str, version: int) -> VersionCheck:
    try:
        bundle.verify(version_dir)
    except BundleError as error:
        return VersionCheck(model, version, error.message)
    return VersionCheck(model, version)
