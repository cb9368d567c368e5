"""Channels: what each entry of a repository's log says, and what all of them together come to.

Nothing here reads or writes. The order of entries is that of their sequence numbers; their times never fall,
whatever the clock did, so "what was live at T" has one answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import RepositoryError

SCHEMA = 1
"""Version of an entry's form; a reader refuses a larger one."""

PRODUCTION = "production"
"""The channel that is served when none is named, and that other servers are told of."""


class What(StrEnum):
    """What an entry records."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RETIRE = "retire"
    RESTORE = "restore"
    COLLECT = "collect"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the log: written once, never changed."""

    schema: int = SCHEMA
    sequence: int
    """1, 2, 3, ... over the whole repository."""
    time: datetime
    """UTC; never before the previous entry's."""
    clock: datetime | None = None
    """What the writer's clock said, where that is another time: it had jumped back."""
    who: str
    """``user@host``."""
    what: What
    channel: str = ""
    model: str
    version: int
    """The version promoted, gone back to, retired, restored or collected."""
    reason: str = ""
    manifest: str = ""
    """Collected: the digest of the manifest that was there."""
    nonce: str
    """Random, so that a writer whose connection broke can tell its own entry from a rival's."""
    check: str = ""
    """Digest of the entry with this field empty: damage is found before it is believed."""


class Live(msgspec.Struct, frozen=True):
    """What a channel points at, and since when."""

    channel: str
    model: str
    version: int
    since: datetime
    reason: str = ""


def checked(entry: Entry) -> Entry:
    """The entry with its check filled in."""
    bare = msgspec.json.encode(msgspec.structs.replace(entry, check=""))
    return msgspec.structs.replace(entry, check=digest_bytes(bare))


def encode_entry(entry: Entry) -> bytes:
    """The entry as one line of JSON."""
    return msgspec.json.encode(entry) + b"\n"


class _Header(msgspec.Struct):
    schema: int


# Made at import, see domain/manifest.py.
_header = msgspec.json.Decoder(_Header)
_entry = msgspec.json.Decoder(Entry)


def decode_entry(data: bytes, name: str, sequence: int) -> Entry:
    """Read an entry.

    Args:
        data: its bytes.
        name: where it was found, for the message.
        sequence: its place in the log.

    Raises:
        RepositoryError: it is damaged, or of a newer schema.
    """
    try:
        newer = _header.decode(data).schema
        entry = _entry.decode(data) if newer <= SCHEMA else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(name, str(error)) from None
    if entry is None:
        raise RepositoryError(f"the log's entry {name} is of a newer schema", got=newer, expected=SCHEMA,
                              hint="upgrade Tailorbird: pip install --upgrade tailorbird")  # fmt: skip
    if encode_entry(checked(entry)) != data:  # also where JSON would read the same: nobody else writes entries
        raise _damaged(name, "bytes that its own digest does not match")
    if entry.sequence != sequence:
        raise _damaged(name, f"the entry of place {entry.sequence}")
    return entry


def _damaged(name: str, got: str) -> RepositoryError:
    hint = f"restore {name} from a copy of the repository; until then nothing of it is believed"
    return RepositoryError(f"the log's entry {name} is damaged", got=got, expected="the entry as it was written",
                           hint=hint)  # fmt: skip


class Standing:
    """What the entries up to some place come to.

    Args:
        entries: from the first one on, in order.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.last: Entry | None = None
        self.retired: dict[tuple[str, int], Entry] = {}
        """By model and version: the entry that retired it."""
        self.collected: dict[tuple[str, int], Entry] = {}
        """Tombstones: versions that were removed. Their numbers are never used again."""
        self.mentioned: dict[str, set[int]] = {}
        """By model: every number that an entry names, so that none is used again even where its version vanished."""
        self._stacks: dict[tuple[str, str], list[Entry]] = {}
        self._left: dict[tuple[str, int], datetime] = {}
        for entry in entries:
            self._take(entry)

    def live(self, model: str, channel: str) -> int | None:
        """What a model's channel points at."""
        entry = self.pointer(model, channel)
        return entry.version if entry else None

    def pointer(self, model: str, channel: str) -> Entry | None:
        """The entry by which a model's channel points where it points."""
        stack = self._stacks.get((model, channel))
        return stack[-1] if stack else None

    def channels(self, model: str | None = None) -> tuple[Live, ...]:
        """Every channel, of one model or of all, by model and name."""
        found = ((key, stack[-1]) for key, stack in sorted(self._stacks.items()) if stack)
        return tuple(Live(channel, name, entry.version, entry.time, entry.reason)
                     for (name, channel), entry in found if model in (None, name))  # fmt: skip

    def names_at(self, model: str, version: int) -> tuple[str, ...]:
        """Names of the channels that point at a version."""
        return tuple(live.channel for live in self.channels(model) if live.version == version)

    def left(self, model: str, version: int) -> datetime | None:
        """When the last channel that pointed at a version left it; None when none ever did."""
        return self._left.get((model, version))

    def before(self, model: str, channel: str) -> int | None:
        """Another version that was live before, the last of those that can still be served."""
        live = self.live(model, channel)
        versions = (entry.version for entry in reversed(self._stacks.get((model, channel), [])[:-1]))
        return next((version for version in versions if version != live and self.serves(model, version)), None)

    def serves(self, model: str, version: int) -> bool:
        """Whether a version is neither retired nor collected."""
        return (model, version) not in self.retired and (model, version) not in self.collected

    def _take(self, entry: Entry) -> None:
        self.last = entry
        self.mentioned.setdefault(entry.model, set()).add(entry.version)
        version, channel = (entry.model, entry.version), (entry.model, entry.channel)
        match entry.what:
            case What.PROMOTE:
                self._leave(entry)
                self._stacks.setdefault(channel, []).append(entry)
            case What.ROLLBACK:
                self._leave(entry)
                self._stacks[channel] = [*self._kept(entry), entry]
            case What.RETIRE:
                self.retired[version] = entry
            case What.RESTORE:
                self.retired.pop(version, None)
            case What.COLLECT:
                self.retired.pop(version, None)
                self.collected[version] = entry

    def _leave(self, entry: Entry) -> None:
        before = self.live(entry.model, entry.channel)
        if before is not None:
            self._left[entry.model, before] = entry.time

    def _kept(self, entry: Entry) -> list[Entry]:
        """The stack below the version that is gone back to, so that the next rollback goes further back."""
        stack = self._stacks.get((entry.model, entry.channel), [])[:-1]
        while stack and stack.pop().version != entry.version:
            pass
        return stack
