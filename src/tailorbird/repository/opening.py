"""A repository by its place: a folder, or ``s3://bucket/prefix``."""

from __future__ import annotations

from pathlib import Path

from tailorbird.repository import layout
from tailorbird.repository.base import Repository
from tailorbird.repository.bucket import SCHEME
from tailorbird.repository.store import LocalRepository


def is_remote(place: str | Path) -> bool:
    """Whether a place's text names object storage."""
    return isinstance(place, str) and place.startswith(SCHEME)


def open_repository(place: str | Path, *, allow_unsigned: bool = False) -> Repository:
    """The repository at a place. Nothing is made or read before the first call of a method.

    Args:
        place: a folder's path, or ``s3://bucket/prefix``; credentials and endpoint come from the environment.
        allow_unsigned: for local experiments: versions without a trusted signature are taken as well.

    Raises:
        UsageError: the place is of neither form.
        RepositoryError: object storage is meant, and obstore is not installed.
    """
    if isinstance(place, str) and is_remote(place):
        from tailorbird.repository.remote import RemoteRepository

        return RemoteRepository(place, allow_unsigned=allow_unsigned)
    return LocalRepository(Path(place), allow_unsigned=allow_unsigned)


def repository_of(folder: Path) -> LocalRepository | None:
    """The repository that a model's folder is in, where that has a log; None for folders of any other kind."""
    root = folder.resolve().parent
    return LocalRepository(root) if (root / layout.OURS / "log").is_dir() else None
