"""The log: an append-only row of entries, each an object of its own, written by whoever is first.

The algorithm is the same over a folder and object storage: read all entries, decide, create the next one
exclusively. Who loses the race reads on and decides again, so each decision is made on all that came before it.
"""

from __future__ import annotations

import getpass
import os
import random
import re
import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from tailorbird.domain.errors import RepositoryError, UsageError
from tailorbird.repository.channels import Entry, Standing, What, checked, decode_entry, encode_entry
from tailorbird.repository.objects import Objects

FOLDER = "log"
MAX_REASON = 1000
_NAME = re.compile(r"([0-9]{12})\.json")
_TRIES = 200
_PAUSE_S = 0.02

T = TypeVar("T")


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What shall be recorded, before it has a place and a time."""

    what: What
    model: str
    version: int
    channel: str = ""
    reason: str = ""
    manifest: str = ""


class Log:
    """The log over some objects. What was read once is remembered: entries never change."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: tuple[Entry, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """All entries in order; raises :class:`RepositoryError` when one is damaged, missing or newer."""
        known = self._known
        found = [_NAME.fullmatch(name) for name in self._objects.names(FOLDER)]
        last = max((int(match[1]) for match in found if match), default=0)
        # By number, not by listing: a listing made while entries are added may show a later one and lack an earlier.
        numbers = range(len(known) + 1, last + 1)
        names = [_place(number) for number in numbers]
        read = zip(numbers, names, self._objects.read_many(names), strict=True)
        self._known = (*known, *(_decoded(data, name, number) for number, name, data in read))
        return self._known

    def standing(self) -> Standing:
        """What all entries come to."""
        return Standing(self.entries())

    def append(self, decide: Callable[[Standing], Draft | T]) -> Entry | T:
        """Add the entry that ``decide`` asks for.

        Args:
            decide: given what stands now, what to record, or anything else for nothing. It may refuse by raising,
                and is asked again when another writer was first.

        Returns:
            The entry as written, or what ``decide`` answered instead of a draft.

        Raises:
            RepositoryError: the log is damaged, or others were first too often.
        """
        for _ in range(_TRIES):
            standing = self.standing()
            draft = decide(standing)
            if not isinstance(draft, Draft):
                return draft
            entry = _entry(draft, standing.last)
            place, data = _place(entry.sequence), encode_entry(entry)
            # A write whose answer was lost is repeated by the store's client, and then finds itself there.
            if self._objects.create(place, data) or self._objects.read(place) == data:
                return entry
            time.sleep(random.uniform(0, _PAUSE_S))
        raise RepositoryError("the log is being written by too many at once", got=f"{_TRIES} lost races",
                              hint="try again in a moment")  # fmt: skip


def checked_reason(text: str) -> str:
    """A reason of one line; raises :class:`UsageError` for what a terminal would obey, or a whole page."""
    if len(text) > MAX_REASON or not all(map(str.isprintable, text)):
        got = f"{len(text)} characters" if len(text) > MAX_REASON else ascii(text)[:200]
        raise UsageError("not a reason", got=got, expected=f"one line of at most {MAX_REASON} characters")
    return text


def who() -> str:
    """``user@host`` of this process; the user's number where it has no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    name = f"{user}@{socket.gethostname()}"
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]


def _entry(draft: Draft, last: Entry | None) -> Entry:
    clock = datetime.fromtimestamp(time.time(), UTC)
    moment = max(clock, last.time) if last else clock
    return checked(
        Entry(
            sequence=last.sequence + 1 if last else 1,
            time=moment,
            clock=clock if clock != moment else None,
            who=who(),
            nonce=secrets.token_hex(8),
            **msgspec.structs.asdict(draft),
        )
    )


def _place(sequence: int) -> str:
    return f"{FOLDER}/{sequence:012}.json"


def _decoded(data: bytes | None, name: str, sequence: int) -> Entry:
    if data is None:
        hint = "restore it from a copy of the repository; until then nothing after it is believed"
        raise RepositoryError(f"the log lacks its entry {name}", expected="every entry from the first one on",
                              hint=hint)  # fmt: skip
    return decode_entry(data, name, sequence)
