"""Settings of a build: one strict record, filled from ``tailorbird.toml`` and flags."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.budget import Budget, parse_budget
from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.objective import Goal, Objective
from tailorbird.domain.quantisation import Ranges


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
    """Real inputs: an ``.npz`` file, a directory of ``.npz`` or ``.npy``, or ``module:callable``."""
    labels: str = ""
    """Key of the labels in the data; empty means ``labels`` or ``label`` where the data has one."""
    metric: str = ""
    """What scores outputs against labels: a built-in name or ``module:callable``; empty means ``top1``."""
    ranges: tuple[Ranges, ...] = (Ranges.MINMAX,)
    """How calibration finds ranges; each is tried where a method offers it."""
    objective: Objective = Objective.LATENCY
    slo_ms: float | None = None
    """With the throughput objective: the most a batch may take at its 99th percentile, in milliseconds."""
    time_budget: float = 300.0
    """Seconds after which no further candidate is begun, so that a build ends soon after; 0 means no bound."""
    threads: tuple[int, ...] = ()
    """Thread counts to try; empty means all cores of this machine, and one."""
    backends: tuple[str, ...] = ()
    """Backends to try; empty means every available one that serves."""
    precisions: tuple[str, ...] = ()
    """Precisions to try; empty means every one this machine executes."""
    options: tuple[str, ...] = ()
    """Options of backends, ``name=value`` each, for every candidate of the backends that have them."""
    cache: str = ""
    """Directory of what builds share; empty means ``$TAILORBIRD_CACHE`` or ``~/.cache/tailorbird``."""
    target: str = ""
    """What to build for, as ``tensorrt_rtx:cuda:sm86``; empty means this machine, with every backend that serves."""
    qualify: bool = True
    """Whether engines are run here. Without, the bundle is unqualified until ``tailorbird qualify`` has run it."""
    keep_kit: bool = False
    """Whether the bundle holds a build kit, from which it can be built again where its engine no longer loads."""
    budget: Budget = Budget()
    limits: Limits = Limits()
    seed: int = 0

    @property
    def goal(self) -> Goal:
        """What fastest means."""
        return Goal(self.objective, self.slo_ms)


_TABLES: dict[str, type[msgspec.Struct]] = {"budget": Budget, "limits": Limits}


def load_config(path: Path, **flags: Any) -> BuildConfig:
    """Settings from the ``[build]`` table of a TOML file, flags winning over it.

    Args:
        path: a ``tailorbird.toml``; a missing file counts as empty.
        flags: settings given on the command line; None means not given.

    Raises:
        UsageError: the file is not TOML, a key is unknown (the nearest is named), or a value has the wrong type.
    """
    return _strict(_merged(_read_table(path), _given(flags)))


def configured(base: BuildConfig, **settings: Any) -> BuildConfig:
    """``base`` with some settings replaced; None means not given. Raises as :func:`load_config` does."""
    return _strict(_merged(msgspec.to_builtins(base), _given(settings)))


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in settings.items() if value is not None}
    return {key: msgspec.to_builtins(value, enc_hook=str) for key, value in plain.items()}


def _strict(settings: dict[str, Any]) -> BuildConfig:
    if isinstance(settings.get("budget"), str):
        settings = settings | {"budget": msgspec.to_builtins(parse_budget(settings["budget"]))}
    _check_names(settings, BuildConfig)
    for key in _TABLES.keys() & settings.keys():
        if isinstance(settings[key], dict):
            _check_names(settings[key], _TABLES[key], f"{key}.")
    try:
        return msgspec.convert(settings, BuildConfig)
    except msgspec.ValidationError as error:  # for example: Expected `int`, got `str` - at `$.seed`
        what, _, where = str(error).partition(" - at `$.")
        raise UsageError(f"setting '{where.rstrip('`')}' has the wrong value: {what.lower()}") from None


def _merged(table: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Flags over the table; a flag inside a table of its own leaves the rest of that table alone."""
    both = {key: table[key] | value for key, value in flags.items()
            if isinstance(value, dict) and isinstance(table.get(key), dict)}  # fmt: skip
    return table | flags | both


def _check_names(settings: dict[str, Any], kind: type[msgspec.Struct], prefix: str = "") -> None:
    known = kind.__struct_fields__
    for key in settings:
        if key not in known:
            close = nearest(key, known)
            raise UsageError(f"unknown setting '{prefix}{key}'", expected=", ".join(known),
                             hint=f"did you mean '{close}'?" if close else None)  # fmt: skip


def _read_table(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"cannot read {path}", got=error, expected="TOML") from None
    unknown = sorted(set(document) - {"build"})
    if unknown:
        raise UsageError(f"unknown table '{unknown[0]}' in {path}", expected="[build]")
    table = document.get("build", {})
    if not isinstance(table, dict):
        raise UsageError(f"'build' in {path} is not a table", got=repr(table), expected="[build]")
    return table
