"""Watching a repository: cheap looks at whether anything in it changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tailorbird.repository import layout

_SETTLED_NS = 2_000_000_000
"""A change within the clock tick of the one before leaves no trace in a folder's time; after this long it would."""

Stamp = tuple[tuple[str, int], ...]


def folder_stamp(root: Path) -> Stamp | None:
    """What changes when a version, a model or an entry of the log comes or goes: the folders' times.

    Returns:
        None where a folder changed just now, or cannot be read: the times say nothing then.
    """
    try:
        return _settled([root, root / layout.OURS / "log", *_models(root)])
    except OSError:
        return None


def _models(root: Path) -> list[Path]:
    with os.scandir(root) as entries:
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _settled(folders: list[Path]) -> Stamp | None:
    newest = time.time_ns() - _SETTLED_NS
    found = []
    for folder in folders:
        changed = _changed(folder)
        if changed > newest:
            return None
        found.append((folder.name, changed))
    return tuple(found)


def _changed(folder: Path) -> int:
    """Nanoseconds; 0 for a folder that is not there, as the log of a repository without one."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
