"""Payloads: request bodies for a model, made from what the server says of it. Never zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import UsageError
from tailorbird.domain.signature import Tensors

VARIETIES = 16
"""Different bodies, sent in rotation."""


class ModelInput(msgspec.Struct, frozen=True):
    """One input as the server's metadata states it; -1 stands for a dynamic dim."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Payload(msgspec.Struct, frozen=True):
    """One request's headers and body."""

    headers: tuple[tuple[str, str], ...]
    body: bytes


def synthetic(
    inputs: tuple[ModelInput, ...],
    rows: int,
    dims: Mapping[str, tuple[int, ...]],
    seed: int = 0,
    varieties: int = VARIETIES,
) -> list[dict[str, Array]]:
    """Seeded inputs of the right types: floats of a normal distribution, whole numbers from 0 to 99.

    Args:
        inputs: of the model.
        rows: size of a leading dynamic dim.
        dims: whole shapes of inputs with further dynamic dims, by name.
        seed: equal seeds give equal inputs.
        varieties: how many.

    Raises:
        UsageError: a dynamic dim that nothing was said about, or a type that is not known.
    """
    random = np.random.default_rng(seed)
    shapes = {one.name: _shape(one, rows, dims) for one in inputs}
    return [{one.name: _values(one, shapes[one.name], random) for one in inputs} for _ in range(varieties)]


def binary(tensors: Tensors, dtypes: Mapping[str, str]) -> Payload:
    """A body in the binary tensor extension: JSON, then the bytes of each input in order."""
    blobs = [blob_of(array) for array in tensors.values()]
    described = [
        {"name": name, "shape": array.shape, "datatype": dtypes[name],
         "parameters": {"binary_data_size": len(blob)}}
        for (name, array), blob in zip(tensors.items(), blobs, strict=True)
    ]  # fmt: skip
    head = msgspec.json.encode({"inputs": described, "parameters": {"binary_data_output": True}})
    headers = (("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head))))
    return Payload(headers, b"".join([head, *blobs]))


def plain(tensors: Tensors, dtypes: Mapping[str, str]) -> Payload:
    """A body in JSON alone."""
    described = [
        {"name": name, "shape": array.shape, "datatype": dtypes[name], "data": _listed(array)}
        for name, array in tensors.items()
    ]
    return Payload((("content-type", "application/json"),), msgspec.json.encode({"inputs": described}))


def _shape(one: ModelInput, rows: int, dims: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    if one.name in dims:
        return dims[one.name]
    leading, *rest = one.shape or (1,)
    if any(size < 0 for size in rest):
        raise UsageError(f"input '{one.name}' has dynamic dims", got=list(one.shape), expected="their sizes",
                         hint=f"say them: --shapes {one.name}:1x128")  # fmt: skip
    return (rows if leading < 0 else leading, *rest) if one.shape else ()


def _values(one: ModelInput, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = _dtype(one)
    if dtype is DType.BYTES:
        return np.full(shape, b"tailorbird", object)
    if dtype is DType.BOOL:
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype is DType.BF16:  # the upper half of a float32's bits
        bits: Array = (random.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits
    kind = np.dtype(dtype.numpy)
    made = random.integers(0, 100, shape) if kind.kind in "iu" else random.standard_normal(shape)
    return np.asarray(made).astype(kind)


def _dtype(one: ModelInput) -> DType:
    try:
        return DType(one.datatype)
    except ValueError:
        raise UsageError(f"input '{one.name}' is of a type that is not known here", got=one.datatype,
                         expected=", ".join(DType), hint="send your own: --inputs FILE.npz") from None  # fmt: skip


def blob_of(array: Array) -> bytes:
    """The bytes of a tensor in the binary extension, and in raw contents."""
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    return b"".join(len(element).to_bytes(4, "little") + element for element in array.flat)


def _listed(array: Array) -> list[Any]:
    if array.dtype == object:
        return [element.decode() for element in array.flat]
    listed: list[Any] = array.ravel().tolist()
    return listed
