"""What a store does for the repository in ``base.py``: reads, writes, and nothing that was promised there already.

Hooks may raise the store's own errors; ``_border`` is what turns them into :class:`RepositoryError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tailorbird.repository.gc import Garbage
from tailorbird.repository.rules import Keep


class Hooks(ABC):
    """A store, as the repository sees it."""

    @abstractmethod
    def _border(self, action: str, hint: str | None = None) -> AbstractContextManager[None]:
        """Where the store's own errors become :class:`RepositoryError`."""

    @abstractmethod
    def _present(self) -> dict[str, tuple[int, ...]]:
        """Versions by model, ascending, each of them whole."""

    @abstractmethod
    def _fetched(self, model: str, version: int) -> Path:
        """A local folder that holds a version."""

    @abstractmethod
    def _original(self, model: str, version: int) -> AbstractContextManager[Path]:
        """A local folder with what the store itself holds of a version now, unchecked, and from no cache."""

    @abstractmethod
    def _manifest_bytes(self, model: str, version: int) -> bytes:
        """The bytes of a version's manifest."""

    @abstractmethod
    def _bytes_of(self, model: str, version: int) -> int:
        """How many bytes all files of a version take."""

    @abstractmethod
    def _staging(self) -> AbstractContextManager[Path]:
        """A private local folder, gone when the block ends."""

    @abstractmethod
    def _added(self, version_dir: Path, model: str, again: bool) -> int:
        """Make a verified, staged copy visible under the next number; or say which version it is already.

        Refuses a model's name that differs from another's by case alone.
        """

    @abstractmethod
    def _removed(self, model: str, version: int) -> None:
        """Take a version that has its tombstone out of sight, then away; one that is gone is as good."""

    @abstractmethod
    def _describe(self, model: str) -> None:
        """Bring a model's ``config.pbtxt`` up to what stands in the log."""

    @abstractmethod
    def _swept(self) -> None:
        """Clear up after dead publishers, whose death is certain."""

    @abstractmethod
    def _litter(self, keep: Keep) -> Iterator[Garbage]:
        """What killed processes left."""

    def _discard(self, garbage: Garbage) -> None:  # noqa: B027
        """Remove a thing that is no version; a store whose :meth:`_litter` names none has nothing to do."""
