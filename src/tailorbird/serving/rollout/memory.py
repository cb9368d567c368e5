"""Memory: what each version takes, and who goes when there is no room."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tailorbird.domain.errors import TailorbirdError
from tailorbird.serving.processes.events import Event, Happening

_ENDS = {Happening.CRASHED, Happening.ENDED}

Version = tuple[str, int]
"""A model's name and a version."""


class NoRoom(TailorbirdError):
    """The memory budget has no room for a version."""


class Tenant(msgspec.Struct, frozen=True):
    """Something that could be put away to make room."""

    name: str
    version: int | None
    """None for the whole model; a version that answers nobody any more goes alone, and first."""
    bytes: int
    used: float
    """Unix time of its last answer, or when it was loaded."""


def chosen(tenants: Iterable[Tenant], needed: int) -> tuple[Tenant, ...] | None:
    """Who goes so that ``needed`` bytes become free: versions that answer nobody, then the least recently used.

    Returns:
        None where even all of them would not do.
    """
    going: list[Tenant] = []
    for tenant in sorted(tenants, key=lambda one: (one.version is None, one.used, one.name)):
        if needed <= 0:
            break
        going.append(tenant)
        needed -= tenant.bytes
    return tuple(going) if needed <= 0 else None


class Ledger:
    """Bytes by version: those of its processes, or of its files where it has none. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: dict[Version, dict[str, int]] = {}
        self._files: dict[Version, int] = {}
        self._found: dict[Version, int] = {}
        self._overhead: int | None = None

    def seen(self, name: str, version: int, event: Event) -> None:
        """Something happened to a process of a version."""
        with self._lock:
            pids = self._pids.setdefault((name, version), {})
            if event.what is Happening.READY and event.pid:
                pids[event.instance] = event.pid
            elif event.what in _ENDS and pids.get(event.instance) == event.pid:  # else another one follows already
                del pids[event.instance]

    def file_bytes(self, version: Version, size: int) -> None:
        """What a version's files take: the estimate until it runs, and the figure where it has no processes."""
        with self._lock:
            self._files[version] = size

    def expected(self, version: Version) -> int:
        """What a version will take: what it took when it ran last; or its files, and what others took beside theirs.

        Of the others the one with the least beside its files: the runtime, which every process has.
        """
        with self._lock:
            files = self._files.get(version, 0)
            return max(self._found.get(version, 0), files) if version in self._found else files + (self._overhead or 0)

    def measured(self, version: Version) -> int:
        """What a version takes now."""
        with self._lock:
            pids = tuple(self._pids.get(version, {}).values())
            files = self._files.get(version, 0)
        found = sum(map(resident, pids)) if pids else files
        with self._lock:
            self._found[version] = found
            if pids and found > files:
                self._overhead = min(found - files, self._overhead or found)
        return found


def resident(pid: int) -> int:
    """Bytes of memory that a process takes, what it shares counted in part (PSS); 0 for one that has ended.

    Source: Linux, ``Documentation/filesystems/proc.rst``, ``smaps_rollup``.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0
