"""The one place where an engine is loaded: verified, matched against this machine, opened."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
from contextlib import ExitStack
from pathlib import Path

from tailorbird.backends.base import Session
from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.closing import Closing
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BundleError
from tailorbird.domain.files import reason
from tailorbird.domain.signature import Tensors
from tailorbird.repository import layout
from tailorbird.repository.machine import backend_here, check_machine, check_qualified, telling_of_kit
from tailorbird.repository.opening import repository_of
from tailorbird.repository.signing.trust import Verified, verified

_WRITE = stat.S_IWGRP | stat.S_IWOTH


class LoadedEngine(Closing):
    """An engine that can run, with the manifest that says what it is. Use it as a context manager.

    ``signer`` says whose signature it carries; None only where unsigned bundles were explicitly allowed.
    """

    def __init__(self, found: Verified, session: Session, resources: ExitStack) -> None:
        self.manifest = found.manifest
        self.signer = found.signer
        self.session = session
        # Files live as long as the session does, also where somebody keeps the session alone.
        self._release = weakref.finalize(session, resources.close)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """Run once; see :meth:`tailorbird.backends.base.Session.run`."""
        return self.session.run(inputs)

    def close(self) -> None:
        """Release the engine, and the temporary files of an unpacked bundle; a second call does nothing."""
        self.session.close()
        self._release()


def open_bundle(path: Path, *, allow_unsigned: bool = False) -> LoadedEngine:
    """Load a ``.engine`` file, a version's folder, or the latest version in a model's folder.

    Args:
        path: the bundle.
        allow_unsigned: for local experiments; see :func:`tailorbird.repository.signing.trust.verified`.

    Raises:
        BundleError: there is no bundle at ``path``; it is altered, or not signed by a key trusted here; it has not
            run on its device yet; or this machine cannot run it.
        BackendUnavailable: its runtime is not installed here.
        BackendError: its runtime refused it.
    """
    with ExitStack() as resources:
        return _loaded(version_folder(path, resources), resources, allow_unsigned)


def version_folder(path: Path, resources: ExitStack) -> Path:
    """The folder of the version at ``path``, for whoever loads it once or often. Nothing of it is verified here.

    Args:
        path: a ``.engine`` file, which is unpacked; a version's folder; or a model's, for its latest version.
        resources: an unpacked folder lives as long as these.

    Raises:
        BundleError: there is no bundle at ``path``, or it cannot be unpacked.
    """
    try:
        return _version_dir(path, resources)
    except OSError as error:
        hint = "see that it can be read and the temporary folder has room; TMPDIR names another"
        raise BundleError(f"cannot open {path}", got=reason(error), hint=hint) from error


def load_version(version_dir: Path, *, allow_unsigned: bool = False) -> LoadedEngine:
    """Load the engine of one version's folder; arguments and errors as of :func:`open_bundle`."""
    with ExitStack() as resources:
        return _loaded(version_dir, resources, allow_unsigned)


def _loaded(version_dir: Path, resources: ExitStack, allow_unsigned: bool) -> LoadedEngine:
    found = verified(version_dir, allow_unsigned=allow_unsigned)
    if (own := _unchanging(version_dir, resources)) != version_dir:
        version_dir, found = own, verified(own, allow_unsigned=allow_unsigned)
    manifest, candidate = found.manifest, found.manifest.candidate
    check_qualified(manifest)
    backend = backend_here(manifest)
    with telling_of_kit(version_dir):
        check_machine(version_dir, manifest, backend)
    session = backend.open(version_dir, candidate, manifest.signature)
    return LoadedEngine(found, session, resources.pop_all())


def _version_dir(path: Path, resources: ExitStack) -> Path:
    if path.is_file():
        return _unpacked(path, resources)
    if not path.is_dir():
        got = "no such file or folder" if not path.exists() else "neither a file nor a folder"
        raise BundleError(f"there is no bundle at {path}", got=got, expected="a .engine file or a version's folder")
    if (path / bundle.MANIFEST).exists():
        return path
    return _latest(path)


def _unpacked(bundle_file: Path, resources: ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tailorbird-"))
    resources.callback(shutil.rmtree, folder, ignore_errors=True)
    return bundlefile.unpack(bundle_file, folder)


def _unchanging(version_dir: Path, resources: ExitStack) -> Path:
    """The version where nobody can swap its files between their verification and the runtime that reads them.

    Returns:
        The folder itself, without links on the way to it; or a private copy where others can change it.
    """
    try:
        place = version_dir.resolve()
        if _exposed(place):
            return _private_copy(place, resources)
        return version_dir if version_dir.absolute() == place else place
    except OSError as error:
        hint = "where others can change it, it is copied first: see that the temporary folder has room"
        raise BundleError(f"cannot copy {version_dir}", got=reason(error), hint=hint) from error


def _exposed(place: Path) -> bool:
    """Whether others than this user and root can change a version: its files, or a folder up to the repository's."""
    inside = (Path(root, name) for root, folders, names in os.walk(place) for name in (*folders, *names))
    return any(map(_is_others, (place, *inside))) or any(map(_lets_others_rename, (place.parent, place.parent.parent)))


def _is_others(path: Path) -> bool:
    state = path.lstat()
    return bool(state.st_mode & _WRITE) or state.st_uid not in (0, os.getuid())


def _lets_others_rename(folder: Path) -> bool:
    """A sticky folder, as ``/tmp``, lets nobody rename what is another's."""
    state = folder.lstat()
    is_sticky = bool(state.st_mode & stat.S_ISVTX)
    return state.st_uid not in (0, os.getuid()) or (bool(state.st_mode & _WRITE) and not is_sticky)


def _private_copy(version_dir: Path, resources: ExitStack) -> Path:
    """A copy that only this user can change; links stay links, which no verified version holds."""
    copy = Path(tempfile.mkdtemp(prefix="tailorbird-"), "version")
    resources.callback(shutil.rmtree, copy.parent, ignore_errors=True)
    shutil.copytree(version_dir, copy, symlinks=True, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(copy):
        Path(folder).chmod(0o700)  # a read-only one could not be removed
    return copy


def _latest(folder: Path) -> Path:
    if versions := layout.versions_in(folder):
        repository = repository_of(folder)  # whose log knows which versions are retired
        return folder / str(repository.latest(folder.resolve().name) if repository else versions[-1])
    models = layout.models_in(folder)
    got = f"a repository of {', '.join(models)}" if models else "a folder without versions"
    hint = f"name a model's folder: {folder / models[0]}" if models else None
    raise BundleError(f"there is no bundle at {folder}", got=got, expected="a version or a model's folder", hint=hint)
