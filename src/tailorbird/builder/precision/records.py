"""What a lowering is given and gives; imports nothing heavy."""

from __future__ import annotations

import msgspec

from tailorbird.domain.precision import Precision

LOW = (Precision.FP16, Precision.BF16)
"""Precisions that are written into a graph as casts."""


class LowerArgs(msgspec.Struct, frozen=True):
    """What one call of :func:`tailorbird.builder.precision.lower.lower` is given."""

    model: str
    """An ONNX file in FP32: normalised, or quantised."""
    precision: Precision
    """FP16 or BF16."""
    samples: tuple[str, ...]
    """``.npz`` files, each one set of inputs, on which values are looked at; without any, only constants are."""
    folder: str
    """An existing empty directory to write into."""
    threads: int
    seed: int = 0
    """Nothing is random today; here so that a build's seed reaches every step alike."""


class Kept(msgspec.Struct, frozen=True):
    """A node that stays in FP32."""

    node: str
    why: str


class Lowered(msgspec.Struct, frozen=True):
    """What was written."""

    model: str
    """File name inside the folder."""
    nodes: int
    """How many nodes take and give the low precision."""
    kept: tuple[Kept, ...]
    """Float nodes that do not, in topological order."""
    snr_db: float | None
    """The worst output against the source's on the samples, with every low value really rounded, in dB; None without
    samples, and where the source's own inputs or outputs are in a low format."""
    notes: tuple[str, ...] = ()
