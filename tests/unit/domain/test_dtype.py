"""Tests of ``domain.dtype``."""

import numpy as np
import onnx
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import ModelError

ALL = list(DType)


@pytest.mark.parametrize("dtype", ALL)
def test_onnx_numbers_map_both_ways(dtype: DType) -> None:
    assert DType.from_onnx(dtype.onnx) is dtype


@pytest.mark.parametrize("dtype", ALL)
def test_onnx_numbers_are_those_of_onnx(dtype: DType) -> None:
    names = {"FP16": "FLOAT16", "BF16": "BFLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING"}
    assert onnx.TensorProto.DataType.Value(names.get(dtype, dtype)) == dtype.onnx


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype is not DType.BF16])
def test_arrays_map_both_ways(dtype: DType) -> None:
    assert DType.of(np.zeros(2, dtype.numpy)) is dtype


def test_bfloat16_is_held_as_bits_and_never_guessed() -> None:
    assert DType.BF16.numpy == np.uint16
    assert DType.of(np.zeros(1, np.uint16)) is DType.UINT16


@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype not in (DType.BF16, DType.BYTES)])
def test_numpy_types_are_those_of_onnx(dtype: DType) -> None:
    assert onnx.helper.tensor_dtype_to_np_dtype(dtype.onnx) == dtype.numpy


@pytest.mark.parametrize("text", [np.array([b"a"]), np.array(["a"]), np.array([b"a"], object)])
def test_text_is_bytes(text: object) -> None:
    assert DType.of(text) is DType.BYTES  # type: ignore[arg-type]


def test_item_sizes() -> None:
    sizes = {dtype: dtype.itemsize for dtype in ALL}
    assert sizes == dict.fromkeys(("BOOL", "UINT8", "INT8"), 1) | dict.fromkeys(
        ("UINT16", "INT16", "FP16", "BF16"), 2
    ) | dict.fromkeys(("UINT32", "INT32", "FP32"), 4) | dict.fromkeys(("UINT64", "INT64", "FP64"), 8) | {"BYTES": 0}


def test_floats() -> None:
    assert [dtype for dtype in ALL if dtype.is_float] == [DType.FP16, DType.BF16, DType.FP32, DType.FP64]


@pytest.mark.parametrize("name", ["complex64", ">f4", "datetime64[s]", "longdouble"])
def test_other_arrays_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"^unsupported array type: got .*, expected BOOL, UINT8, .*, BYTES$"):
        DType.of(np.zeros(1, np.dtype(name)))


def test_other_onnx_types_are_refused() -> None:
    with pytest.raises(ModelError, match=r"^unsupported ONNX element type: got type number 14, expected BOOL"):
        DType.from_onnx(onnx.TensorProto.COMPLEX64)
