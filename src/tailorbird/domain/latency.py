"""Latency: what was measured, as robust statistics, and the table every decision reads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from tailorbird.domain.signature import Shape

_PERCENTILES = (0, 25, 50, 75, 90, 99)


class Latency(msgspec.Struct, frozen=True):
    """Wall-clock milliseconds of single runs, seen from the host."""

    min: float
    p25: float
    median: float
    p75: float
    p90: float
    p99: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latency:
        """Statistics of at least one sample, in milliseconds."""
        places = [round(float(value), 6) for value in np.percentile(milliseconds, _PERCENTILES)]
        return cls(**dict(zip(cls.__struct_fields__, places, strict=False)), runs=len(milliseconds))

    @property
    def spread(self) -> float:
        """Half the interquartile range, in milliseconds: the noise a comparison must exceed."""
        return (self.p75 - self.p25) / 2


class LatencyRow(msgspec.Struct, frozen=True):
    """The latency at one place of the profile."""

    edge: str
    shapes: dict[str, Shape]
    rows: int
    instances: int
    latency: Latency
