"""Room: the memory budget kept, by putting away what was used least recently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Protocol

from tailorbird.serving.hub import Hub
from tailorbird.serving.rollout.memory import Ledger, NoRoom, Tenant, Version, chosen

_DRAIN_S = 30.0
"""How long whoever needs room waits for those who leave it."""


class Lodger(Protocol):
    """A model, as far as room is concerned."""

    name: str
    asleep: bool
    touched: float
    lock: threading.RLock

    @property
    def previous(self) -> int | None:
        """A version that is only kept for a rollback."""

    def evict(self) -> Iterable[Future[None]]:
        """Put everything away until somebody asks for it again."""

    def drop_previous(self) -> Iterable[Future[None]]:
        """Put that version away."""


class Room:
    """The budget.

    Args:
        limit: bytes that all engines together may take; None for no limit.
        pins: models that never go.
        hub: what is in service.
        ledger: what it takes.
        lodgers: asked for all models.
    """

    def __init__(
        self, limit: int | None, pins: Iterable[str], hub: Hub, ledger: Ledger,
        lodgers: Callable[[], Iterable[Lodger]],
    ) -> None:  # fmt: skip
        self.limit = limit
        self._pins = frozenset(pins)
        self._hub = hub
        self._ledger = ledger
        self._lodgers = lodgers
        self._lock = threading.RLock()
        self._reserved: dict[Version, int] = {}

    def fits_alone(self, version: Version) -> bool:
        """Whether a version would fit if nothing else were loaded, as far as is known."""
        return self.limit is None or self._ledger.expected(version) <= self.limit

    @contextmanager
    def for_load(self, version: Version, *, evicts: bool) -> Iterator[None]:
        """Room for a version that is loaded in the block, kept for it until then.

        Args:
            version: which.
            evicts: models in use may go; otherwise only what is kept for rollbacks.

        Raises:
            NoRoom: there is none.
        """
        if self.limit is None:
            yield
            return
        with self._lock:
            needed = self._ledger.expected(version)
            if needed > self.limit:
                raise self._too_large(needed)
            self._make(version, self.used() + needed - self.limit, evicts or version[0] in self._pins)
            self._reserved[version] = self._ledger.expected(version)
        try:
            yield
        finally:
            with self._lock:
                del self._reserved[version]

    def settle(self) -> None:
        """Hold what is in service against the budget, by what it takes now, and put away what is too much.

        Raises:
            NoRoom: that did not do.
        """
        if self.limit is not None:
            with self._lock:
                self._make(None, self._in_service() - self.limit, evicts=True)

    def admit(self, version: Version, take: Callable[[], None], *, evicts: bool) -> None:
        """Take a version that is loaded into service, now that it can be measured.

        What others are loading meanwhile does not count: of two that have no room together the first one stays.

        Args:
            version: which.
            take: takes it into service.
            evicts: models in use may go.

        Raises:
            NoRoom: there is none for it.
        """
        if self.limit is None:
            take()
            return
        with self._lock:
            found = self._ledger.measured(version)
            if found > self.limit:
                raise self._too_large(found)
            self._make(version, self._in_service() + found - self.limit, evicts or version[0] in self._pins)
            take()

    def used(self) -> int:
        """Bytes that everything in service takes now, and what is being loaded will."""
        loaded = {(model.name, model.version) for model in self._hub.loaded}
        coming = sum(
            max(size, self._ledger.measured(version))
            for version, size in self._reserved.items()
            if version not in loaded
        )
        return self._in_service() + coming

    def _in_service(self) -> int:
        return sum(self._ledger.measured((model.name, model.version)) for model in self._hub.loaded)

    def _make(self, version: Version | None, over: int, evicts: bool) -> None:
        """Let so many bytes become free, under the lock."""
        if over <= 0:
            return
        free = {lodger.name: lodger for lodger in self._lodgers() if lodger.lock.acquire(blocking=False)}
        try:
            going = chosen(self._tenants(version, free, evicts), over)
            if going is None:
                raise NoRoom("there is no room in the memory budget", got=f"{over} bytes too many",
                             expected=f"{self.limit} bytes in all")  # fmt: skip
            ends = [end for one in going for end in self._ends(free[one.name], one)]
        finally:
            for lodger in free.values():
                lodger.lock.release()
        if wait(ends, _DRAIN_S).not_done:
            raise NoRoom("what has to make room still answers its requests", expected=f"an end within {_DRAIN_S:g} s")

    def _ends(self, lodger: Lodger, tenant: Tenant) -> Iterable[Future[None]]:
        return lodger.evict() if tenant.version is None else lodger.drop_previous()

    def _tenants(self, version: Version | None, free: dict[str, Lodger], evicts: bool) -> Iterator[Tenant]:
        for name, lodger in free.items():
            loaded = self._hub.loaded_versions(name)
            size = {number: self._ledger.measured((name, number)) for number in loaded}
            previous = lodger.previous
            if previous in size and (name, previous) != version:
                yield Tenant(name, previous, size.pop(previous), 0.0)
            if evicts and size and name not in self._pins and (version is None or name != version[0]):
                used = max([lodger.touched, *(model.statistics.last for model in loaded.values())])
                yield Tenant(name, None, sum(size.values()), used)

    def _too_large(self, needed: int) -> NoRoom:
        return NoRoom("the version is larger than the whole memory budget", got=f"{needed} bytes",
                      expected=f"at most {self.limit} bytes", hint="raise --memory-budget")  # fmt: skip
