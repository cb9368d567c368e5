"""Candidate options of NVIDIA's builders: what each sets, and which flavour has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.domain.candidate import Candidate, Option
from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.precision import Precision

Apply = Callable[[Any, Any, Any], None]
"""Of the vendor's module, a builder's configuration, and the option's value."""


class Setting(msgspec.Struct, frozen=True):
    """One option: what it may be, and what it does to a builder's configuration."""

    kind: type[Option]
    choices: tuple[Option, ...] = ()
    """All that it may be; any of its kind where there are none."""
    apply: Apply | None = None
    """None where it shapes something else than the configuration."""

    def takes(self, value: Option) -> bool:
        """Whether the option may be that; a truth value is no number."""
        return type(value) is self.kind and (not self.choices or value in self.choices)

    @property
    def values(self) -> tuple[Option, ...]:
        """What it may be, where that can be listed."""
        return (False, True) if self.kind is bool else self.choices

    @property
    def expected(self) -> str:
        """What it may be, in words."""
        return ", ".join(map(str, self.choices)) or {int: "a number", bool: "true or false"}.get(self.kind, "a text")


def _flag(name: str) -> Apply:
    def apply(trt: Any, config: Any, value: bool) -> None:
        flag = getattr(trt.BuilderFlag, name)
        config.set_flag(flag) if value else config.clear_flag(flag)

    return apply


def _level(_: Any, config: Any, value: int) -> None:
    config.builder_optimization_level = value


def _workspace(trt: Any, config: Any, value: int) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, value << 20)


def _hardware(trt: Any, config: Any, value: str) -> None:
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, value.upper())


def _streams(_: Any, config: Any, value: int) -> None:
    config.max_aux_streams = value


SETTINGS: dict[str, Setting] = {
    "aux_streams": Setting(int, tuple(range(8)), _streams),
    "hardware_compatibility": Setting(str, ("none", "same_compute_capability", "ampere_plus"), _hardware),
    "optimization_level": Setting(int, tuple(range(6)), _level),
    "profiles": Setting(str, ("one", "edges")),
    "refit": Setting(bool, apply=_flag("REFIT")),
    "strip_weights": Setting(bool, apply=_flag("STRIP_PLAN")),
    "tf32": Setting(bool, apply=_flag("TF32")),
    "timing_cache": Setting(bool),
    "version_compatible": Setting(bool, apply=_flag("VERSION_COMPATIBLE")),
    "workspace_mib": Setting(int, apply=_workspace),
}
"""``profiles=edges`` adds to the whole range one fixed shape for each of its edges, with kernels chosen for it."""


def check_options(flavour: Flavour, options: Mapping[str, Option]) -> None:
    """Raise :class:`UsageError` for an option that the flavour does not have, or a value that it cannot be."""
    for name, value in options.items():
        if name not in flavour.options:
            close = nearest(name, tuple(sorted(flavour.options)))
            raise UsageError(f"{flavour.title} has no option '{name}'", expected=", ".join(sorted(flavour.options)),
                             hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
        setting = SETTINGS[name]
        if not setting.takes(value) or (name == "workspace_mib" and int(value) < 1):
            raise UsageError(f"option '{name}' cannot be that", got=repr(value), expected=setting.expected)


def apply_options(trt: Any, config: Any, candidate: Candidate) -> None:
    """Set a builder's configuration as the candidate's options say, which :func:`check_options` has passed.

    An FP32 candidate runs FP32: TF32, which rounds factors to ten bits and which the library allows by itself, is
    an option of its own. Where a lower precision was asked for, layers left in FP32 may use it.
    """
    asked: dict[str, Option] = {"tf32": candidate.precision is not Precision.FP32, **candidate.options}
    for name, value in asked.items():
        apply = SETTINGS[name].apply
        if apply is not None:
            apply(trt, config, value)
