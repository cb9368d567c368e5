"""Targets: whether their engines are built here, run here, or neither."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tailorbird.backends import registry
from tailorbird.backends.base import Capabilities
from tailorbird.domain.candidate import Form
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import UsageError


def check_builds(able: Mapping[str, Capabilities], made_elsewhere: bool = False) -> None:
    """Refuse, before the long work, a target that cannot be built for on this machine.

    Args:
        able: of the backends to try.
        made_elsewhere: whether the build is one out of a kit, which is finished on its target only.

    Raises:
        UsageError: the builder itself needs the device; or the kit is for another.
    """
    for name, one in able.items():
        if made_elsewhere and not one.runs_here:
            raise UsageError(f"the build kit is for {one.target}, which this machine is not", got=_fault(name),
                             hint="finish it on such a device")  # fmt: skip
        if not one.builds_here or (one.needs_device_to_build and not one.runs_here):
            raise UsageError(f"{name} builds for {one.target} on such a device only", got="this machine",
                             hint="make a build kit with -o NAME.kit, and finish it there")  # fmt: skip


def _fault(name: str) -> str | None:
    """Why the runtime cannot be used here, which may be all that is wrong with the machine."""
    found = registry.backend(name).probe()
    return None if found.available else found.reason


def check_threads(able: Mapping[str, Capabilities], config: BuildConfig) -> None:
    """Raise :class:`UsageError` where an engine for another machine would get as many threads as this one has cores."""
    for one in able.values():
        if one.takes_threads and not one.runs_here and not config.threads:
            raise UsageError(f"how many threads engines for {one.target} are to use cannot be seen here",
                             expected="the device's own count",
                             hint="say it: --threads 8 for a device with 8 cores")  # fmt: skip


def travelling(able: Mapping[str, Capabilities], config: BuildConfig) -> BuildConfig:
    """The settings of a kit without a program: no runtime is named that would compile it, unless no other one is."""
    kept = tuple(name for name in config.backends if able[name].form is not Form.PROGRAM)
    return msgspec.structs.replace(config, backends=kept or config.backends)


def reason_not_to_run(able: Mapping[str, Capabilities], config: BuildConfig) -> str:
    """Why engines are compiled and not run; empty where they are."""
    foreign = [str(one.target) for one in able.values() if not one.runs_here]
    if foreign:
        return f"no {foreign[0]} here"
    return "" if config.qualify else "as asked"
