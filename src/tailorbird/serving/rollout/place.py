"""Places: where a server's models come from, and how one of their versions is brought into service."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from tailorbird.domain.errors import RepositoryError
from tailorbird.repository import layout
from tailorbird.repository.base import Repository
from tailorbird.repository.channels import Live
from tailorbird.repository.store import LocalRepository
from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.rollout.control import FOLDER_POLL_S, REMOTE_POLL_S
from tailorbird.serving.rollout.smoke import smoke_check
from tailorbird.serving.rollout.watch import Stamp, folder_stamp
from tailorbird.serving.starting import HubOptions, Isolation, Started, Watch, put_in_service


class Look(msgspec.Struct, frozen=True):
    """What stood in a repository when it was looked at."""

    serving: Mapping[str, int]
    """The version of each model that is in service."""
    channels: tuple[Live, ...]


class Place(Protocol):
    """Where versions come from."""

    @property
    def poll_s(self) -> float:
        """Seconds between two looks that cost the place nothing to speak of."""

    @property
    def leavable(self) -> bool:
        """Whether a load may be left behind when the server ends: none of the engine runs in this process."""

    def look(self) -> Look:
        """What stands there now; raises :class:`TailorbirdError`."""

    def stamp(self) -> Stamp | None:
        """Equal to the last one where nothing changed since; None where that cannot be said."""

    def load(self, name: str, version: int, watch: Watch) -> LoadedModel:
        """A version verified, started, warm and checked; raises whatever is wrong with it."""

    def file_bytes(self, name: str, version: int) -> int:
        """What a version's files take; raises :class:`TailorbirdError`."""


class RepositoryPlace:
    """A repository.

    Args:
        repository: it.
        options: how its models are put into service.
        channel: the one that is served; see :meth:`Repository.serving`.
        only: one model's name, or empty for all.
    """

    def __init__(self, repository: Repository, options: HubOptions, channel: str = "", only: str = "") -> None:
        self.repository = repository
        self._options = options
        self._channel = channel
        self._only = only
        self._root = repository.root if isinstance(repository, LocalRepository) else None
        self._had_log = False
        self._had_models = False

    @property
    def poll_s(self) -> float:
        """See :class:`Place`."""
        return REMOTE_POLL_S if self._root is None else FOLDER_POLL_S

    @property
    def leavable(self) -> bool:
        """See :class:`Place`."""
        return self._options.isolation is Isolation.PROCESS

    def look(self) -> Look:
        """See :class:`Place`.

        Raises:
            RepositoryError: it cannot be read; also where it lies in a folder in which neither a model is left nor
                the log, as in the mount point of a file system that has gone; or nothing where models were.
        """
        serving = self.repository.serving(self._channel)
        self._check_there(serving)
        mine = {name: version for name, version in serving.items() if self._only in ("", name)}
        return Look(mine, self.repository.channels(self._only or None))

    def stamp(self) -> Stamp | None:
        """See :class:`Place`."""
        return None if self._root is None else folder_stamp(self._root)

    def load(self, name: str, version: int, watch: Watch) -> LoadedModel:
        """See :class:`Place`."""
        layout.model_name(name)
        what = Started(name, version, self.repository.version_dir(name, version))
        return put_in_service(what, self._options, watch, ExitStack(), smoke_check)

    def file_bytes(self, name: str, version: int) -> int:
        """See :class:`Place`."""
        return folder_bytes(self.repository.version_dir(name, version))

    def _check_there(self, serving: Mapping[str, int]) -> None:
        if self._root is None:
            return
        has_log = (self._root / layout.OURS).is_dir()
        bare = self._had_models and not any(self._root.iterdir())
        if not serving and (bare or (self._had_log and not has_log)):
            raise RepositoryError(f"the repository at {self._root} has gone", got="an empty folder",
                                  hint="is its file system still mounted?")  # fmt: skip
        self._had_log = self._had_log or has_log
        self._had_models = self._had_models or bool(serving)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; those that go meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 0 if path.is_dir() else path.lstat().st_size
        except FileNotFoundError:
            continue
    return total
