"""The cache on the command line: what it holds, what a build found in it, and how to make room."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from tailorbird.cli import render
from tailorbird.domain.cache import LIMIT_BYTES, Cache, Entry, Freed, cache_root
from tailorbird.domain.claims import distrust
from tailorbird.domain.errors import UsageError

app = App(name="cache", help="What builds share: finished engines, graphs, reference outputs.")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")]
Place = Annotated[str, Parameter(name="--cache", help="the cache's directory, as given to build.")]

_GIB = 1 << 30
_SHORT = 22
"""Characters that are shown of a digest: enough to tell two apart."""


class Asked:
    """Keeps what a build asked its cache for; call it with each event of the build log."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        """Take notice of one event."""
        if event["event"] == "cache":
            self.events.append({key: value for key, value in event.items() if key not in ("event", "at")})


@app.command(name="list")
def list_entries(*, cache: Place = "", json: Json = False) -> None:
    """List what the cache holds, the entry used last first."""
    entries = _opened(cache).entries()
    if json:
        render.write_json([_as_data(entry) for entry in entries])
        return
    table = _table("kind", "of", "size", "made", "last used", "key", right=("size",))
    for entry in entries:
        record = entry.record
        table.add_row(record.kind, Text(record.about), size(record.bytes), record.made, _time(entry.used),
                      entry.place.name[:12])  # fmt: skip
    render.out.print(table)
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    render.out.print(f"{count}, {size(sum(entry.record.bytes for entry in entries))} in {cache_root(cache)}",
                     markup=False, soft_wrap=True)  # fmt: skip


@app.command
def gc(*, limit: float = LIMIT_BYTES / _GIB, cache: Place = "", json: Json = False) -> None:
    """Remove what was used longest ago until the rest fits; what was used within the hour stays.

    Args:
        limit: GiB that may remain.
    """
    if not 0 <= limit * _GIB < math.inf:
        raise UsageError("the limit is no size", got=f"{limit:g} GiB", expected="0 or more, and finite")
    _tell(_opened(cache).gc(int(limit * _GIB)), json)


@app.command
def clear(kind: str | None = None, *, cache: Place = "", json: Json = False) -> None:
    """Remove everything that no running build uses.

    Args:
        kind: engines, normalised, references, quantised, sensitivity or sources; all of them without it.
    """
    opened = _opened(cache)
    kinds = tuple(sorted({entry.record.kind for entry in opened.entries()}))
    if kind is not None and kind not in kinds:
        raise UsageError(f"the cache holds nothing of kind '{kind}'", expected=", ".join(kinds) or "an entry")
    _tell(opened.clear(kind), json)


def explain(events: Iterable[dict[str, Any]]) -> Table:
    """What a build asked its cache for: found or not, when it was made, and what is not as it was."""
    table = _table("kind", "of", "cache", "made", "what changed")
    for event in events:
        found = Text("hit", "green") if event["hit"] else Text("miss", "yellow")
        table.add_row(event["kind"], Text(event["about"]), found, event["made"] or "-", Text("\n".join(_why(event))))
    return table


def words(change: dict[str, str]) -> str:
    """One changed ingredient: ``seed: 0 -> 1``."""
    return f"{change['name']}: {_brief(change['was'])} -> {_brief(change['now'])}"


def size(count: int) -> str:
    """Bytes with three digits at most, in the unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.3g} GiB"


def _opened(cache: str) -> Cache:
    root = cache_root(cache)
    if why := distrust(root):
        raise UsageError("the cache is not yours alone", got=why, expected="a directory that only you can write to",
                         hint="give another --cache, or: chmod go-w DIR")  # fmt: skip
    return Cache(root)


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name != "what changed")
    return table


def _why(event: dict[str, Any]) -> list[str]:
    if event["hit"]:
        return ["-"]
    return [words(change) for change in event["changed"]] or ["nothing of this kind was made before"]


def _brief(text: str) -> str:
    if not text:
        return "nothing"
    return f"{text[:_SHORT]}…" if ":" in text[:14] and text.startswith("sha256") else text


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _as_data(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {"kind": record.kind, "about": record.about, "bytes": record.bytes, "made": record.made,
            "used": _time(entry.used), "seconds": record.seconds, "key": record.key, "digest": entry.place.name,
            "place": str(Path(entry.place))}  # fmt: skip


def _tell(freed: Freed, json: bool) -> None:
    if json:
        render.write_json(freed._asdict())
        return
    count = "1 entry" if freed.entries == 1 else f"{freed.entries} entries"
    stays = f"; {freed.in_use} in use stayed" if freed.in_use else ""
    render.out.print(f"removed {count}, {size(freed.bytes)}{stays}", markup=False)
