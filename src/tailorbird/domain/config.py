"""Settings of a build: one strict record, filled from ``tailorbird.toml`` and flags."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.budget import Budget
from tailorbird.domain.errors import UsageError, nearest


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one isolated step may use."""

    seconds: float = 600.0
    memory_bytes: int = 16 << 30


class BuildConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a user can set about a build. Shapes are in trtexec's grammar."""

    min_shapes: str = ""
    opt_shapes: str = ""
    max_shapes: str = ""
    data: str = ""
    """Real inputs: an ``.npz`` file, a directory of them, or ``module:callable``."""
    threads: tuple[int, ...] = ()
    """Thread counts to try; empty means all cores of this machine, and one."""
    backends: tuple[str, ...] = ()
    """Backends to try; empty means every available one that serves."""
    precisions: tuple[str, ...] = ()
    """Precisions to try; empty means every one this machine executes."""
    budget: Budget = Budget()
    limits: Limits = Limits()
    seed: int = 0


def load_config(path: Path, **flags: Any) -> BuildConfig:
    """Settings from the ``[build]`` table of a TOML file, flags winning over it.

    Args:
        path: a ``tailorbird.toml``; a missing file counts as empty.
        flags: settings given on the command line; None means not given.

    Raises:
        UsageError: the file is not TOML, a key is unknown (the nearest is named), or a value has the wrong type.
    """
    settings = _read_table(path) | {key: value for key, value in flags.items() if value is not None}
    for key in settings:
        if key not in BuildConfig.__struct_fields__:
            close = nearest(key, BuildConfig.__struct_fields__)
            raise UsageError(f"unknown setting '{key}'", expected=", ".join(BuildConfig.__struct_fields__),
                             hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    try:
        return msgspec.convert(settings, BuildConfig)
    except msgspec.ValidationError as error:
        raise UsageError("a setting has the wrong value", got=error) from None


def _read_table(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", got=error, expected="TOML") from None
    unknown = sorted(set(document) - {"build"})
    if unknown:
        raise UsageError(f"unknown table '{unknown[0]}' in {path}", expected="[build]")
    return dict(document.get("build", {}))
