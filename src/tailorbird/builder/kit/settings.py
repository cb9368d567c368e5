"""Settings of a build out of a kit: the kit's, and the few that the machine which finishes it may say anew."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec

from tailorbird.domain.config import BuildConfig, Limits
from tailorbird.domain.errors import UsageError

SAID_THERE = frozenset({"threads", "backends", "precisions", "time_budget", "limits", "cache", "keep_kit"})
"""Settings of a kit's build that the machine which finishes it may say anew."""


def finishing(kit: BuildConfig, said: BuildConfig, given: Container[str] = ()) -> BuildConfig:
    """The kit's settings with what is said where it is finished; limits one by one.

    Args:
        kit: its settings.
        said: there.
        given: names of settings that were said though they may equal the defaults, ``limits.seconds`` among them.

    Raises:
        UsageError: a setting is said that the kit has decided otherwise.
    """
    changed = _changed(said, BuildConfig(), given)
    if "limits" in changed:
        changed["limits"] = msgspec.structs.replace(kit.limits, **_changed(said.limits, Limits(), given, "limits."))
    for name in sorted(changed.keys() - SAID_THERE):
        if changed.pop(name) == getattr(kit, name):
            continue
        raise UsageError(f"a build kit has its own {name.replace('_', ' ')}", got=getattr(said, name),
                         expected="the kit's", hint="say it when the kit is made")  # fmt: skip
    return msgspec.structs.replace(kit, **changed)


def _changed(said: msgspec.Struct, plain: msgspec.Struct, given: Container[str], prefix: str = "") -> dict[str, Any]:
    values = {name: getattr(said, name) for name in said.__struct_fields__}
    return {name: value for name, value in values.items() if prefix + name in given or value != getattr(plain, name)}
