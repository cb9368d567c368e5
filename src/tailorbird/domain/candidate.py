"""Candidates: one way to build an engine."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation
from tailorbird.domain.target import Target

Option = str | int | bool


class ShapeMode(StrEnum):
    """How the engine is compiled; what it must serve is the profile."""

    STATIC = "static"
    DYNAMIC = "dynamic"


class Form(StrEnum):
    """What a backend compiles."""

    GRAPH = "graph"
    """The normalised ONNX graph in its own types; the runtime is told the precision."""
    CAST = "cast"
    """The same graph with the precision written into it: FP16 and BF16 as casts, INT8 and FP8 as Q/DQ."""
    PROGRAM = "program"
    """The PyTorch program, exported: only where the source is one."""


class Candidate(msgspec.Struct, frozen=True):
    """Target x precision x profile x shape mode x threads x runtime options x quantisation x instances."""

    target: Target
    precision: Precision
    profile: Profile
    shape_mode: ShapeMode
    threads: int
    options: dict[str, Option] = {}
    quantisation: Quantisation | None = None
    instances: int = 1
    """Sessions of it that run side by side, each with ``threads`` threads."""
    form: Form = Form.GRAPH
    """What is compiled; the backend says what it takes."""

    @property
    def name(self) -> str:
        """A short name, unique among the candidates of one build: ``openvino int8 static t2 nncf bf16-rest``."""
        width = f"t{self.threads}" + (f"x{self.instances}" if self.instances > 1 else "")
        words = self.quantisation.words if self.quantisation else ()
        extra = [f"{key}={str(value).lower()}" for key, value in sorted(self.options.items())]
        return " ".join([self.target.runtime, self.precision, self.shape_mode, width, *words, *extra])

    @property
    def boldness(self) -> tuple[int, int, int]:
        """Order by how much accuracy is put at risk: a bolder candidate must be faster than each plainer one.

        By executed precision, then by whether weights are quantised, then by how little is kept in float.
        """
        quantised = self.quantisation
        return self.precision.rank, int(quantised is not None), -len(quantised.kept) if quantised else 0
