"""Element types: one enum, named as the Open Inference Protocol names them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailorbird.domain.errors import ModelError

Array = NDArray[Any]
"""A numpy array of any element type."""


class DType(StrEnum):
    """An element type. BYTES is a variable-length byte string (numpy ``object`` holding ``bytes``).

    BF16 has no numpy type: its arrays are ``uint16`` bit patterns.
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type that holds it, little-endian."""
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        """Bytes of one element on the wire; 0 for BYTES, whose elements vary."""
        return 0 if self is DType.BYTES else self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        """Whether fidelity is a matter of degree (floats) or of equality (all others)."""
        return self in (DType.FP16, DType.BF16, DType.FP32, DType.FP64)

    @classmethod
    def of(cls, array: Array) -> DType:
        """The type of a numpy array; raises :class:`ModelError` for one that no runtime takes."""
        for dtype, numpy in _NUMPY.items():
            if array.dtype == numpy and dtype is not DType.BF16:
                return dtype
        if array.dtype.kind in "SU":
            return cls.BYTES
        raise ModelError("unsupported array type", got=array.dtype, expected=", ".join(cls))

    @classmethod
    def from_onnx(cls, code: int) -> DType:
        """The type behind an ONNX ``TensorProto.DataType`` number."""
        for dtype, number in _ONNX.items():
            if number == code:
                return dtype
        raise ModelError("unsupported ONNX element type", got=f"type number {code}", expected=", ".join(cls))

    @property
    def onnx(self) -> int:
        """The ONNX ``TensorProto.DataType`` number."""
        return _ONNX[self]


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.UINT8: np.dtype("<u1"),
    DType.UINT16: np.dtype("<u2"),
    DType.UINT32: np.dtype("<u4"),
    DType.UINT64: np.dtype("<u8"),
    DType.INT8: np.dtype("<i1"),
    DType.INT16: np.dtype("<i2"),
    DType.INT32: np.dtype("<i4"),
    DType.INT64: np.dtype("<i8"),
    DType.FP16: np.dtype("<f2"),
    DType.BF16: np.dtype("<u2"),
    DType.FP32: np.dtype("<f4"),
    DType.FP64: np.dtype("<f8"),
    DType.BYTES: np.dtype(object),
}
# Source: onnx.proto, enum TensorProto.DataType.
_ONNX: dict[DType, int] = {
    DType.FP32: 1,
    DType.UINT8: 2,
    DType.INT8: 3,
    DType.UINT16: 4,
    DType.INT16: 5,
    DType.INT32: 6,
    DType.INT64: 7,
    DType.BYTES: 8,
    DType.BOOL: 9,
    DType.FP16: 10,
    DType.FP64: 11,
    DType.UINT32: 12,
    DType.UINT64: 13,
    DType.BF16: 16,
}
