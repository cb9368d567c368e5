"""Warming up: the first runs of an engine are slow, and no client should wait for them."""

from __future__ import annotations

import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.signature import Shape
from tailorbird.repository.load import LoadedEngine


def warm_up(engine: LoadedEngine) -> None:
    """One run on zeros at the profile's opt shape: a runtime allocates and picks kernels on its first run.

    Raises:
        BackendError: the runtime failed.
    """
    shapes = engine.manifest.candidate.profile.opt
    engine.run({spec.name: zeros(spec.dtype, shapes[spec.name]) for spec in engine.manifest.signature.inputs})


def zeros(dtype: DType, shape: Shape) -> Array:
    """Zeros, or empty texts."""
    if dtype is DType.BYTES:
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype.numpy)
