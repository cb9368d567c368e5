"""The smoke check: a version answers a few made-up requests, and answers them well, before any client's reach it.

Whether it is *accurate* the gate has decided, on real data. What is found here is an engine that does not work on
this machine, or not as it was built: kernels that this processor runs wrongly, a runtime of another version, files
of another model.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.signature import Shape, Shapes, Signature, Tensors

SEED = 20_130_422
LIMIT_S = 60.0
"""Seconds that all of it may take."""


class Runs(Protocol):
    """What is checked: a batcher, with the instances behind it."""

    async def run(self, inputs: Tensors) -> dict[str, Array]:
        """Answer one request."""


def smoke_check(manifest: Manifest, runs: Runs, limit_s: float = LIMIT_S) -> None:
    """Let a version that serves nobody yet answer seeded inputs of its profile's smallest and usual shapes, twice.

    Blocks, in an event loop of its own; not to be called where one runs.

    Args:
        manifest: of the version: its signature, profile and precision.
        runs: answers, by the way that clients' requests will take.
        limit_s: seconds that all of it may take.

    Raises:
        BackendError: it does not answer in time; or an output is missing, or of another dtype or shape than the
            signature's; or some rows are NaN or infinite where others are not; or the same rows get another answer
            the second time, by more than :attr:`Precision.consistency_db`.
        TailorbirdError: what the run itself raised.
    """
    asyncio.run(_within(manifest, runs, limit_s))


async def _within(manifest: Manifest, runs: Runs, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await _checked(manifest, runs)
    except TimeoutError:
        raise BackendError("the smoke check found no answer in time", expected=f"all within {limit_s:g} s") from None


async def _checked(manifest: Manifest, runs: Runs) -> None:
    signature, profile = manifest.signature, manifest.candidate.profile
    for where, shapes in {"opt": profile.opt, "min": profile.min}.items():
        if where == "min" and (shapes == profile.opt or any(0 in shape for shape in shapes.values())):
            continue  # nothing new to ask, or nothing at all
        inputs = made_up(signature, shapes)
        first, second = await runs.run(inputs), await runs.run(inputs)
        for spec in signature.outputs:
            place = f"output '{spec.name}' at the profile's {where} shape"
            got = _present(first, spec.name, place)
            _check_form(signature, shapes, spec.name, got, place)
            _check_finite(got, spec.dtype, place)
            _check_same(got, _present(second, spec.name, place), spec.dtype, manifest, place)


def made_up(signature: Signature, shapes: Shapes) -> dict[str, Array]:
    """Seeded inputs that any model takes.

    Floats from 0.25 to 1, where logarithms and roots are defined; whole numbers 0 and 1, as masks are and every
    table has; texts that are numbers.
    """
    random = np.random.default_rng(SEED)
    return {spec.name: _draw(random, spec.dtype, shapes[spec.name]) for spec in signature.inputs}


def _draw(random: np.random.Generator, dtype: DType, shape: Shape) -> Array:
    if dtype is DType.BYTES:
        return np.array([b"%d" % n for n in random.integers(0, 2, shape).ravel()], object).reshape(shape)
    if dtype is DType.BF16:  # the upper half of a float32's bits
        bits: Array = (random.uniform(0.25, 1, shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits
    if dtype.is_float:
        return np.asarray(random.uniform(0.25, 1, shape)).astype(dtype.numpy)
    return np.asarray(random.integers(0, 2, shape)).astype(dtype.numpy)


def _present(outputs: Tensors, name: str, place: str) -> Array:
    if name not in outputs:
        raise BackendError(f"the smoke check failed: {place} is missing", got=", ".join(outputs) or "no output")
    return outputs[name]


def _check_form(signature: Signature, shapes: Shapes, name: str, got: Array, place: str) -> None:
    spec = next(one for one in signature.outputs if one.name == name)
    if got.dtype != spec.dtype.numpy:
        raise BackendError(f"the smoke check failed: {place} is of another dtype", got=got.dtype,
                           expected=spec.dtype.numpy)  # fmt: skip
    bound = signature.bind(shapes)
    dims = tuple(bound.get(dim, -1) if isinstance(dim, str) else dim for dim in spec.dims)
    fits = len(dims) == got.ndim and all(dim in (-1, size) for dim, size in zip(dims, got.shape, strict=True))
    if not fits:
        raise BackendError(f"the smoke check failed: {place} is of another shape", got=list(got.shape),
                           expected=list(dims))  # fmt: skip


def _check_finite(got: Array, dtype: DType, place: str) -> None:
    """What is NaN or infinite in every row alike is the model's own way (a mask, say); in some rows it is damage."""
    if not dtype.is_float or not got.ndim or not got.size:
        return
    strange = ~np.isfinite(_numbers(got, dtype))
    if (strange != strange[:1]).any():
        rows = int(strange.reshape(len(strange), -1).any(1).sum())
        raise BackendError(f"the smoke check failed: {place} is not finite in some rows", got=f"{rows} such rows",
                           expected=f"all of {len(strange)} rows alike")  # fmt: skip


def _check_same(first: Array, second: Array, dtype: DType, manifest: Manifest, place: str) -> None:
    limit = manifest.candidate.precision.consistency_db
    least = _agreement_db(first, second, dtype)
    if least < limit:
        raise BackendError(f"the smoke check failed: {place} differs when the same rows are asked again",
                           got=f"{least:.1f} dB", expected=f"at least {limit:g} dB")  # fmt: skip


def _agreement_db(first: Array, second: Array, dtype: DType) -> float:
    """Signal-to-noise ratio of one answer to the other, in dB: 10 log10(sum a² / sum (a - b)²)."""
    if first.shape != second.shape:
        return -np.inf
    if not dtype.is_float:
        return np.inf if np.array_equal(first, second) else -np.inf
    a, b = _numbers(first, dtype), _numbers(second, dtype)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return -np.inf
    a, b = (np.nan_to_num(one, posinf=0.0, neginf=0.0) for one in (a, b))
    noise, signal = float(np.square(a - b).sum()), float(np.square(a).sum())
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal else -np.inf


def _numbers(array: Array, dtype: DType) -> Array:
    """As float64; BF16's bit patterns, too."""
    if dtype is DType.BF16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array).astype(np.float64)
