"""One side of a comparison: what a bundle, a version's folder or a build log tells about its build.

Read as a stranger's: every file has a limit, nothing of it is loaded or run. What is missing or unreadable is noted,
and the rest is compared without it; only the manifest, or else the log, there must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tailorbird.domain.bundle import MANIFEST, MAX_MANIFEST_BYTES
from tailorbird.domain.bundlefile import entries_of
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import BundleError, TailorbirdError, UsageError
from tailorbird.domain.files import reason
from tailorbird.domain.layers import LAYERS, LayerBook, LayerTable, decode_layers
from tailorbird.domain.manifest import Manifest, decode_manifest
from tailorbird.domain.outline import OUTLINE, Outline, decode_outline

LOG = "tailorbird/build.jsonl"
LIMITS = {MANIFEST: MAX_MANIFEST_BYTES, LOG: 64 << 20, LAYERS: 64 << 20, OUTLINE: 64 << 20}
"""The most bytes that are read of each file."""

Event = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """What is known of one build; whatever is None or empty was not recorded."""

    path: Path
    """As the user named it."""
    kind: str
    place: Path
    """The ``.engine`` file, the version's folder, or the log."""
    manifest: Manifest | None = None
    events: tuple[Event, ...] = ()
    book: LayerBook | None = None
    outline: Outline | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The chosen candidate's name; empty where none was chosen."""
        if self.manifest is not None:
            return self.manifest.candidate.name
        return str(self.event("chosen").get("candidate", ""))

    @property
    def layers(self) -> LayerTable | None:
        """The chosen engine's layers, as profiled when it was built."""
        return self.book.of(self.name) if self.book else None

    def event(self, name: str) -> Event:
        """The last event of that name in the log; empty without one."""
        return next((event for event in reversed(self.events) if event.get("event") == name), {})


def read_side(path: Path) -> Side:
    """Read a ``.engine`` file, a version's folder, a model's folder (its latest version), or a build log.

    Raises:
        UsageError: there is nothing of the kind at ``path``.
        BundleError: the bundle has no readable manifest, or the log no readable line.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            raise UsageError(f"there is nothing to compare at {path}", got="no such file or folder", expected=_EXPECTED)
        return _log(path, path) if _is_text(path) else _bundle(path)
    except OSError as error:
        raise BundleError(f"cannot read {path}", got=reason(error)) from error


_EXPECTED = "a .engine file, a version's or a model's folder, or a build.jsonl"


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"{"


def _folder(path: Path) -> Side:
    place = path if (path / MANIFEST).is_file() else _latest(path)
    if place is not None:
        papers = {name: _bytes(place / name, most) for name, most in LIMITS.items()}
        return _side(path, "version", place, {name: data for name, data in papers.items() if data is not None})
    for log in (path / LOG, path / "build.jsonl"):
        if log.is_file():
            return _log(path, log)
    raise UsageError(f"there is nothing to compare at {path}", got="a folder without a manifest", expected=_EXPECTED,
                     hint="name a model's folder: REPOSITORY/MODEL")  # fmt: skip


def _latest(folder: Path) -> Path | None:
    """The newest version in a model's folder: Triton's rules number them."""
    numbers = [int(one.name) for one in folder.iterdir() if one.name.isascii() and one.name.isdecimal()]
    known = [number for number in numbers if (folder / str(number) / MANIFEST).is_file()]
    return folder / str(max(known)) if known else None


def _bundle(path: Path) -> Side:
    return _side(path, "bundle", path, entries_of(path, LIMITS))


def _log(path: Path, log: Path) -> Side:
    data = _bytes(log, LIMITS[LOG]) or b""
    events = _events(data)
    if not events:
        raise BundleError(f"{log} is no build log", expected="lines of JSON, each with an 'event'")
    notes: tuple[str, ...] = ("only a build log: no layers, no graph and no gate to compare",)
    if not any(event["event"] == "chosen" for event in events):
        notes += ("the build of this log chose no engine",)
    return Side(path, "build log", log, events=events, notes=notes)


def _bytes(path: Path, most: int) -> bytes | None:
    """A file's content; None where there is none, or it is a link, which no bundle holds."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise BundleError(f"{path} is too large to compare", expected=f"at most {most} bytes")
    return data


def _side(path: Path, kind: str, place: Path, papers: dict[str, bytes]) -> Side:
    if MANIFEST not in papers:
        raise BundleError(f"{path} has no manifest", expected=MANIFEST, hint="build it again")
    manifest = decode_manifest(papers[MANIFEST])
    reader = _Papers(manifest, papers)
    return Side(
        path=path,
        kind=kind,
        place=place,
        manifest=manifest,
        events=reader.read(LOG, "build log", _events) or (),
        book=reader.read(LAYERS, "layer times", decode_layers),
        outline=reader.read(OUTLINE, "graph", decode_outline),
        notes=tuple(reader.notes),
    )


class _Papers:
    """Reads what the manifest vouches for; takes a note of all else."""

    def __init__(self, manifest: Manifest, papers: dict[str, bytes]) -> None:
        self._digests = manifest.files
        self._papers = papers
        self.notes: list[str] = []

    def read(self, name: str, what: str, decode: Callable[[bytes], T]) -> T | None:
        """The decoded file, or None with a note that says why."""
        data = self._papers.get(name)
        if data is None:
            self.notes.append(f"no {what}: it has no {name}")
            return None
        if self._digests.get(name) != digest_bytes(data):
            self.notes.append(f"no {what}: {name} is not what the manifest says")
            return None
        try:
            return decode(data)
        except TailorbirdError as error:
            self.notes.append(f"no {what}: {error.what}")
            return None


def _events(data: bytes) -> tuple[Event, ...]:
    return tuple(_lines(data))


def _lines(data: bytes) -> Iterator[Event]:
    """Events of a log; a torn or strange line is passed over, as a killed build leaves one."""
    for line in data.splitlines():
        try:
            event = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event
