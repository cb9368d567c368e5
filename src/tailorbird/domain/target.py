"""Targets: runtime + device + architecture as one value with a text form that parses back."""

from __future__ import annotations

import re

import msgspec

from tailorbird.domain.errors import UsageError


class Target(msgspec.Struct, frozen=True):
    """Where an engine runs, e.g. ``openvino:cpu:avx512``. ``Target.parse(str(target)) == target``."""

    runtime: str
    device: str
    arch: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``runtime:device:arch``; raises :class:`UsageError` for anything else."""
        parts = text.split(":")
        if len(parts) != 3 or not all(re.fullmatch(r"[a-z0-9_]+", part) for part in parts):
            raise UsageError("cannot read target", got=repr(text), expected="runtime:device:arch")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.runtime}:{self.device}:{self.arch}"
