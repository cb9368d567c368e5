"""Path grammar of a model repository, so that Triton and OpenVINO Model Server can serve the same tree.

::

    <root>/<model>/config.pbtxt
    <root>/<model>/<version>/...      1, 2, 3, ... without leading zeros
    <root>/.tailorbird/               what is ours alone: hidden, so that other servers pass it by
"""

from __future__ import annotations

import re
from pathlib import Path

from tailorbird.domain.bundle import is_plain_name
from tailorbird.domain.errors import UsageError

RESERVED = ("configs", "warmup", "initial_state")
"""Names that mean something else to Triton."""

_NAME = "1 to 128 of ASCII letters, digits, '.', '_' and '-', starting with a letter or digit"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # Triton reads versions into 64 signed bits


def model_name(text: str) -> str:
    """The text itself, once it is a model's name.

    Raises:
        UsageError: it could leave the repository, look like another name, or is reserved by Triton.
    """
    if not is_plain_name(text):
        shown = ascii(text) if len(text) <= 200 else f"{len(text)} characters"
        raise UsageError("not a model name", got=shown, expected=_NAME)
    if text in RESERVED:
        raise UsageError("the model name is reserved by Triton", got=text, expected=f"none of {', '.join(RESERVED)}")
    return text


def version_number(text: str) -> int | None:
    """The version that a folder's name stands for, or None when Triton would pass the folder by."""
    return int(text) if _VERSION.fullmatch(text) else None


def model_dir(root: Path, model: str) -> Path:
    """Where a model lives; raises :class:`UsageError` for anything but a model's name."""
    return root / model_name(model)


def version_dir(root: Path, model: str, version: int) -> Path:
    """Where a version lives; raises :class:`UsageError` for a bad name or a version below 1."""
    if version_number(str(version)) is None:
        raise UsageError("not a version", got=version, expected="a positive whole number")
    return model_dir(root, model) / str(version)


def versions_in(folder: Path) -> tuple[int, ...]:
    """Versions among a model folder's children, ascending; raises :class:`OSError` when unreadable."""
    numbers = (version_number(child.name) for child in folder.iterdir() if child.is_dir())
    return tuple(sorted(number for number in numbers if number is not None))


def models_in(root: Path) -> tuple[str, ...]:
    """Names of the folders that hold at least one version; raises :class:`OSError` when unreadable."""
    folders = (child for child in root.iterdir() if is_plain_name(child.name) and child.is_dir())
    return tuple(sorted(f.name for f in folders if f.name not in RESERVED and versions_in(f)))


def incoming_dir(root: Path) -> Path:
    """Where a publish prepares its copy: on the repository's own file system, out of every reader's sight."""
    return root / ".tailorbird" / "incoming"


def commit_lock(root: Path) -> Path:
    """The file that is locked for the moment in which a version becomes visible."""
    return root / ".tailorbird" / "commit.lock"
