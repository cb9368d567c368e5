"""Element types of inputs and outputs that the library takes, under its names."""

from __future__ import annotations

from tailorbird.domain.dtype import DType

TYPES = {
    "FLOAT": DType.FP32,
    "HALF": DType.FP16,
    "BF16": DType.BF16,
    "INT8": DType.INT8,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "UINT8": DType.UINT8,
    "BOOL": DType.BOOL,
}
"""FP64 is not among them: the parser takes it and makes FP32 of it, at the border, too."""
