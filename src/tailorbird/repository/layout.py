"""Path grammar of a model repository, so that Triton and OpenVINO Model Server can serve the same tree.

::

    <root>/<model>/config.pbtxt
    <root>/<model>/<version>/...      1, 2, 3, ... without leading zeros
    <root>/.tailorbird/               what is ours alone: hidden, so that other servers pass it by
    <root>/.tailorbird/log/           the log: one file for each entry, 000000000001.json, ...
    <root>/.tailorbird/incoming/      local: versions being published; gone with their publishers
    <root>/.tailorbird/claims/        object storage: <model>/<version>.json, numbers being published
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tailorbird.domain.bundle import is_plain_name
from tailorbird.domain.errors import UsageError

RESERVED = ("configs", "warmup", "initial_state")
"""Names that mean something else to Triton."""

OURS = ".tailorbird"
"""The folder that other servers pass by."""

CLAIMS = f"{OURS}/claims"
"""Where, in object storage, numbers are claimed for versions on their way in."""

_NAME = "1 to 128 of ASCII letters, digits, '.', '_' and '-', starting with a letter or digit"
_CHANNEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # lower case only, so that no two differ by case alone
_CHANNEL_WORDS = "1 to 64 of lower-case ASCII letters, digits, '.', '_' and '-', starting with a letter or digit"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # Triton reads versions into 64 signed bits


def model_name(text: str) -> str:
    """The text itself, once it is a model's name.

    Raises:
        UsageError: it could leave the repository, look like another name, or is reserved by Triton.
    """
    if not is_plain_name(text):
        raise UsageError("not a model name", got=_shown(text), expected=_NAME)
    if text in RESERVED:
        raise UsageError("the model name is reserved by Triton", got=text, expected=f"none of {', '.join(RESERVED)}")
    return text


def channel_name(text: str) -> str:
    """The text itself, once it is a channel's name; raises :class:`UsageError`."""
    if _CHANNEL.fullmatch(text) is None:
        raise UsageError("not a channel name", got=_shown(text), expected=_CHANNEL_WORDS)
    return text


def check_twin(model: str, known: Iterable[str]) -> None:
    """Refuse a new model's name that differs from a known one by case alone.

    Some file systems take both for one folder. Raises :class:`UsageError`.
    """
    twins = [name for name in known if name != model and name.casefold() == model.casefold()]
    if twins:
        raise UsageError("the model's name differs from another's by case alone", got=model, expected=twins[0],
                         hint=f"publish it as '{twins[0]}', or under a name of its own")  # fmt: skip


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 200 else f"{len(text)} characters"


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
    return root / OURS / "incoming"


def commit_lock(root: Path) -> Path:
    """The file that is locked for the moment in which a version becomes visible."""
    return root / OURS / "commit.lock"


def version_of_key(key: str) -> tuple[str, int] | None:
    """The model and version that an object's key ``<model>/<version>/...`` belongs to, or None."""
    model, _, rest = key.partition("/")
    number = version_number(rest.partition("/")[0]) if "/" in rest else None
    return (model, number) if number and is_plain_name(model) and model not in RESERVED else None


def version_of_claim(key: str) -> tuple[str, int] | None:
    """The model and version that a claim's key stands for, or None."""
    return version_of_key(key.removeprefix(f"{CLAIMS}/").removesuffix(".json") + "/")
