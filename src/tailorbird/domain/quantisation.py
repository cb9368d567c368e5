"""Quantisation: how a candidate's graph is brought to INT8 before its runtime compiles it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tailorbird.domain.precision import Precision


class Ranges(StrEnum):
    """How the range of each activation is found on calibration data."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


class Quantisation(msgspec.Struct, frozen=True):
    """A method, the float precision of what it leaves alone, and what it is told to leave alone.

    ``Candidate.precision`` stays what the engine must be seen to execute: INT8, or, where only the weights are
    stored in INT8, the float precision they are computed in.
    """

    method: str
    """Name of a method of :mod:`tailorbird.builder.quantise.methods`."""
    rest: Precision = Precision.FP32
    """Precision of the layers that stay in float."""
    ranges: Ranges | None = None
    """None where the method needs no calibration."""
    kept: tuple[str, ...] = ()
    """Units left in float although the method could quantise them, by name: mixed precision."""

    @property
    def words(self) -> tuple[str, ...]:
        """What of it enters a candidate's name: ``nncf``, ``percentile`` unless min-max, ``bf16-rest``, ``kept12``."""
        usual = self.ranges in (None, Ranges.MINMAX)
        rest = () if self.rest is Precision.FP32 else (f"{self.rest}-rest",)
        kept = (f"kept{len(self.kept)}",) if self.kept else ()
        return (self.method, *(() if usual else (str(self.ranges),)), *rest, *kept)

    @property
    def graph(self) -> Quantisation:
        """What of it shapes the graph: the precision of the rest is the runtime's affair."""
        return msgspec.structs.replace(self, rest=Precision.FP32)

    @property
    def base(self) -> Quantisation:
        """The same with nothing kept: what a mixed one is made from."""
        return msgspec.structs.replace(self, kept=())
