"""An entry of the cache: what it holds, from what it was made, and whether it is still what it was."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.digest import digest_bytes, digest_file

RECORD = "entry.json"
SCHEMA = 1
MAX_RECORD_BYTES = 16 << 20
MAX_DEPTH = 8

_HASHERS = 2
"""Threads that hash: one reaches about 1.4 GB/s, and hashlib lets others run meanwhile."""


class Record(msgspec.Struct, frozen=True):
    """What ``entry.json`` says beside an entry's files."""

    kind: str
    key: Any
    """All that the entry follows from, readable, so that it explains itself."""
    about: str
    """Of which model or source, for people; no part of the key."""
    files: dict[str, str]
    """Digest of every other file, by its path relative to the entry."""
    made: str
    """UTC, ISO 8601."""
    seconds: float
    """How long it took to make."""
    bytes: int
    schema: int = SCHEMA
    seal: str = ""
    """Digest of all the rest, so that this file tells of its own damage, too."""


class Change(msgspec.Struct, frozen=True):
    """One ingredient of a key that is not what it was."""

    name: str
    was: str
    now: str
    """Empty where the ingredient is gone; ``was`` is empty where it is new."""


def digest_of(key: Any) -> str:
    """The hexadecimal name of the entry with that key; the order of a mapping's parts means nothing."""
    return digest_bytes(msgspec.json.encode(msgspec.to_builtins(key), order="sorted")).rpartition(":")[2]


def flat(key: Any, prefix: str = "") -> dict[str, str]:
    """A key's ingredients by name, parts of nested ones joined by dots."""
    plain = msgspec.to_builtins(key)
    if not isinstance(plain, Mapping):
        return {prefix or "key": plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()}
    found: dict[str, str] = {}
    for name, value in plain.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def changes(old: Any, new: Any) -> tuple[Change, ...]:
    """Which ingredients of two keys differ, in the new one's order, then those that are gone."""
    was, now = flat(old), flat(new)
    names = (*now, *(name for name in was if name not in now))
    return tuple(Change(name, was.get(name, ""), now.get(name, ""))
                 for name in names if was.get(name) != now.get(name))  # fmt: skip


# Made at import, see domain/manifest.py.
_record = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """The record as indented JSON, sealed."""
    whole = msgspec.structs.replace(record, seal=digest_of(msgspec.structs.replace(record, seal="")))
    return msgspec.json.format(msgspec.json.encode(whole), indent=1)


def read_record(folder: Path) -> Record:
    """The record of an entry; raises :class:`ValueError` with what is wrong with it, or :class:`OSError`."""
    handle = os.open(folder / RECORD, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb") as file:
        data = file.read(MAX_RECORD_BYTES)
    try:
        record = _record.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{RECORD} cannot be read: {error}") from None
    if record.schema != SCHEMA:
        raise ValueError(f"{RECORD} is of schema {record.schema}, not {SCHEMA}")
    if record.seal != digest_of(msgspec.structs.replace(record, seal="")):
        raise ValueError(f"{RECORD} was altered")
    return record


def digests(folder: Path) -> tuple[dict[str, str], int]:
    """Digest of every file below a folder but its record, by relative path, and their bytes together.

    Raises:
        OSError: one cannot be read.
        ValueError: one is no plain file, or they are nested too deep.
    """
    names = sorted(name for name in _walk(folder, "") if name != RECORD)
    with ThreadPoolExecutor(_HASHERS) as pool:
        found = dict(zip(names, pool.map(lambda name: digest_file(folder / name), names), strict=True))
    return found, sum((folder / name).stat().st_size for name in names)


def check(folder: Path, kind: str) -> Record:
    """The record of an entry, once every file is found to be what it says.

    Raises:
        ValueError: what is wrong, as one phrase that names the file.
        OSError: it cannot be read.
    """
    record = read_record(folder)
    if record.kind != kind or digest_of(record.key) != folder.name:
        raise ValueError(f"{RECORD} is of another entry")
    found, _ = digests(folder)
    for name in sorted(found.keys() | record.files.keys()):
        if name not in found:
            raise ValueError(f"'{name}' is missing")
        if name not in record.files:
            raise ValueError(f"{name!a} is not one of its files")
        if found[name] != record.files[name]:
            raise ValueError(f"'{name}' was altered")
    return record


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    if prefix.count("/") >= MAX_DEPTH:
        raise ValueError("its folders are nested too deep")
    with os.scandir(folder) as found:
        for one in found:
            if one.is_dir(follow_symlinks=False):
                yield from _walk(Path(one.path), f"{prefix}{one.name}/")
            elif one.is_file(follow_symlinks=False):
                yield prefix + one.name
            else:
                raise ValueError(f"{prefix + one.name!a} is a link or a device")
