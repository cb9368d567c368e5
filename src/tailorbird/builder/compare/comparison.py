"""The comparison as a record: what ``compare --json`` prints, ``--html`` draws and the terminal shows.

A change is always B less A: positive milliseconds are a slower B, positive decibels a B nearer to its source.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tailorbird.domain.latency import LatencyRow

SCHEMA = 1
"""Version of the comparison's form as JSON; fields are only ever added within one version."""


class Area(StrEnum):
    """Where two builds can differ."""

    GRAPH = "source graph"
    WEIGHTS = "weights"
    PRECISION = "precision"
    QUANTISATION = "quantisation"
    FUSION = "fusion"
    SHAPES = "profiles and shapes"
    RUNTIME = "runtime"
    THREADS = "threads"
    INSTANCES = "instances"
    OPTIONS = "runtime options"
    VERSION = "runtime version"
    DEVICE = "device"
    DATA = "data"
    BUDGET = "budget"
    TOOLS = "tools"
    OUTSIDE = "between layers"
    """What a run takes beyond its layers: scheduling, copies, the call itself."""
    UNEXPLAINED = "unexplained"
    """Layers of which nothing differs that was recorded."""


class Basis(StrEnum):
    """How a contribution was found."""

    LAYERS = "layer times"
    TURNS = "measured in turn"
    ONLY = "the only difference"
    PROBES = "layers' errors"
    SCORES = "scores"
    NONE = "not measured"


class Difference(msgspec.Struct, frozen=True):
    """One recorded fact that is not the same on both sides."""

    area: Area
    what: str
    a: str
    b: str


class Cause(msgspec.Struct, frozen=True):
    """One explanation of a change, with its part of it."""

    areas: tuple[Area, ...]
    """More than one where records cannot tell them apart."""
    text: str
    contribution: float | None
    """In the change's unit; None where nothing measured it. Contributions of a change add up to it."""
    basis: Basis
    spread: float | None = None
    """Noise of the contribution, in the same unit, where it was measured in turn."""


class LayerSide(msgspec.Struct, frozen=True):
    """One layer as one side executed it."""

    name: str
    kind: str
    precision: str
    milliseconds: float


class Pair(msgspec.Struct, frozen=True):
    """Layers of both sides that stand for the same nodes of the source; one side may have none."""

    nodes: tuple[str, ...]
    """In A's names where A has the node."""
    a: tuple[LayerSide, ...]
    b: tuple[LayerSide, ...]
    change: float
    """Milliseconds, each side's layers scaled so that they fit the latency that is told."""
    area: Area
    """What its change is put down to."""


class LatencyChange(msgspec.Struct, frozen=True):
    """The change of a run's median milliseconds at one place of the profiles."""

    a: LatencyRow
    b: LatencyRow
    same_shapes: bool
    change: float
    noise: float
    """Milliseconds that the two medians may differ by though nothing changed."""
    beyond_noise: bool
    measured_here: bool
    causes: tuple[Cause, ...]
    """The largest part of the change first."""


class Figure(msgspec.Struct, frozen=True):
    """One number of the gate, on both sides; None where a side did not measure it."""

    rule: str
    where: str
    a: float | None
    b: float | None
    reference_a: float | None = None
    """What FP32 scores on the same rows, for a metric."""
    reference_b: float | None = None


class AccuracyChange(msgspec.Struct, frozen=True):
    """The change of the number that tells most: a metric's score, or else the least SNR."""

    rule: str
    where: str
    a: float
    b: float
    change: float
    beyond_noise: bool
    causes: tuple[Cause, ...]
    """Contributions are in points of the score; for an SNR, in shares of the added error (they add up to 1)."""


class SideFacts(msgspec.Struct, frozen=True):
    """Which build one side is."""

    path: str
    kind: str
    """``bundle``, ``version`` or ``build log``."""
    model: str
    candidate: str
    target: str
    created: str
    source: str


class Comparison(msgspec.Struct, frozen=True):
    """Everything that was found out about two builds."""

    summary: tuple[str, ...]
    """Sentences for people: latency, then accuracy."""
    a: SideFacts
    b: SideFacts
    latency: LatencyChange | None
    accuracy: AccuracyChange | None
    differences: tuple[Difference, ...]
    layers: tuple[Pair, ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    """What could not be compared and why, and what else one should know."""
    schema: int = SCHEMA


def encode_comparison(found: Comparison) -> bytes:
    """The comparison as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2)


def decode_comparison(data: bytes) -> Comparison:
    """The inverse of :func:`encode_comparison`; raises ``msgspec.DecodeError`` for anything else."""
    return msgspec.json.decode(data, type=Comparison)
