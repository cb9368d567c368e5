"""Candidates: one way to build an engine."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target

Option = str | int | bool


class ShapeMode(StrEnum):
    """How the engine is compiled; what it must serve is the profile."""

    STATIC = "static"
    DYNAMIC = "dynamic"


class Candidate(msgspec.Struct, frozen=True):
    """Target x precision x profile x shape mode x threads x runtime options."""

    target: Target
    precision: Precision
    profile: Profile
    shape_mode: ShapeMode
    threads: int
    options: dict[str, Option] = {}

    @property
    def name(self) -> str:
        """A short name, unique among the candidates of one build: ``openvino fp32 static t2``."""
        extra = [f"{key}={str(value).lower()}" for key, value in sorted(self.options.items())]
        return " ".join([self.target.runtime, self.precision, self.shape_mode, f"t{self.threads}", *extra])
