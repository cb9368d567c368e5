"""Settings of a build out of a kit: the kit's, and the few that the machine which finishes it may say anew."""

from __future__ import annotations

import msgspec

from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import UsageError

SAID_THERE = frozenset({"threads", "backends", "precisions", "time_budget", "limits", "cache", "keep_kit"})
"""Settings of a kit's build that the machine which finishes it may say anew."""


def finishing(kit: BuildConfig, said: BuildConfig) -> BuildConfig:
    """The kit's settings with what is said where it is finished.

    Raises:
        UsageError: a setting is said that the kit has decided.
    """
    plain = BuildConfig()
    changed = {
        name: getattr(said, name) for name in said.__struct_fields__ if getattr(said, name) != getattr(plain, name)
    }
    for name in sorted(changed.keys() - SAID_THERE):
        raise UsageError(f"a build kit has its own {name.replace('_', ' ')}", got=changed[name],
                         expected="the kit's", hint="say it when the kit is made")  # fmt: skip
    return msgspec.structs.replace(kit, **changed)
