"""Typed contents: the values of a tensor in the message's own fields, to arrays. Pure functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.signature import Shape
from tailorbird.service.faults import WireError

_FIELD = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
    DType.BYTES: "bytes_contents",
}
"""Source: the protocol's ``InferTensorContents``. FP16 and BF16 have no field."""
_WIDE = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}


def from_contents(name: str, dtype: DType, shape: Shape, contents: Any) -> Array:
    """An array from typed contents.

    Args:
        name: the input's name, for errors.
        dtype: any but FP16 and BF16.
        shape: already judged by :func:`tailorbird.service.tensors.element_count`.
        contents: an ``InferTensorContents``, whose values :func:`tailorbird.service.rpc.scan.split` has counted.

    Raises:
        WireError: the wrong field is filled, or the values contradict shape or dtype.
    """
    field = _FIELD.get(dtype)
    if field is None:
        raise WireError(f"input '{name}' is {dtype}, which typed contents cannot carry",
                        hint="send it in raw_input_contents")  # fmt: skip
    filled = [one.name for one, _ in contents.ListFields() if one.name != field]
    if filled:
        raise WireError(f"input '{name}' has data in {filled[0]}", expected=f"{field} for {dtype}")
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise WireError(f"input '{name}' has data of the wrong length", got=f"{len(values)} elements",
                        expected=f"{count} for its shape")  # fmt: skip
    return _array(name, dtype, field, values).reshape(shape)


def _array(name: str, dtype: DType, field: str, values: Any) -> Array:
    if dtype is DType.BYTES:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
        return array
    wide = _WIDE.get(field, dtype.numpy)
    array = np.fromiter(values, wide, len(values))
    return array if wide == dtype.numpy else _narrowed(name, dtype, array)


def _narrowed(name: str, dtype: DType, array: Array) -> Array:
    """The protocol carries 8 and 16 bits in fields of 32."""
    bounds = np.iinfo(dtype.numpy)
    if array.size and (array.min() < bounds.min or array.max() > bounds.max):
        wrong = array.min() if array.min() < bounds.min else array.max()
        raise WireError(f"input '{name}' has a value that does not fit", got=int(wrong),
                        expected=f"{bounds.min} to {bounds.max} for {dtype}")  # fmt: skip
    return array.astype(dtype.numpy)
