"""Typed contents to arrays."""

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")

from tailorbird.domain.dtype import DType
from tailorbird.service.faults import WireError
from tailorbird.service.rpc import schema
from tailorbird.service.rpc.contents import from_contents

Contents = type(schema.ModelInferRequest().inputs.add().contents)


@pytest.mark.parametrize(
    ("dtype", "field", "values"),
    [
        (DType.BOOL, "bool_contents", [True, False]),
        (DType.INT8, "int_contents", [-128, 127]),
        (DType.INT16, "int_contents", [-(2**15), 2**15 - 1]),
        (DType.INT32, "int_contents", [-(2**31), 2**31 - 1]),
        (DType.INT64, "int64_contents", [-(2**63), 2**63 - 1]),
        (DType.UINT8, "uint_contents", [0, 255]),
        (DType.UINT16, "uint_contents", [0, 2**16 - 1]),
        (DType.UINT32, "uint_contents", [0, 2**32 - 1]),
        (DType.UINT64, "uint64_contents", [0, 2**64 - 1]),
        (DType.FP32, "fp32_contents", [-1.5, float("inf")]),
        (DType.FP64, "fp64_contents", [1e300, 5e-324]),
        (DType.BYTES, "bytes_contents", [b"\xff\x00", b""]),
    ],
)
def test_each_dtype_has_its_field(dtype, field, values):
    array = from_contents("x", dtype, (2, 1), Contents(**{field: values}))
    assert array.dtype == dtype.numpy
    assert array.tolist() == [[value] for value in values]
    assert from_contents("x", dtype, (0, 3), Contents()).shape == (0, 3)


def test_not_a_number_stays_one():
    assert np.isnan(from_contents("x", DType.FP32, (1,), Contents(fp32_contents=[float("nan")])))[0]


@pytest.mark.parametrize(
    ("dtype", "shape", "fields", "text"),
    [
        (DType.FP16, (1,), {"fp32_contents": [1]},
         "input 'x' is FP16, which typed contents cannot carry\nHint: send it in raw_input_contents"),
        (DType.BF16, (1,), {}, "input 'x' is BF16, which typed contents cannot carry\n"
                               "Hint: send it in raw_input_contents"),
        (DType.FP32, (1,), {"int_contents": [1]},
         "input 'x' has data in int_contents: expected fp32_contents for FP32"),
        (DType.FP32, (1,), {"fp32_contents": [1], "fp64_contents": [1]},
         "input 'x' has data in fp64_contents: expected fp32_contents for FP32"),
        (DType.FP32, (2, 2), {"fp32_contents": [1, 2, 3]},
         "input 'x' has data of the wrong length: got 3 elements, expected 4 for its shape"),
        (DType.FP32, (), {}, "input 'x' has data of the wrong length: got 0 elements, expected 1 for its shape"),
        (DType.FP32, (0,), {"fp32_contents": [1]},
         "input 'x' has data of the wrong length: got 1 elements, expected 0 for its shape"),
        (DType.INT8, (2,), {"int_contents": [1, 128]},
         "input 'x' has a value that does not fit: got 128, expected -128 to 127 for INT8"),
        (DType.INT16, (1,), {"int_contents": [-32769]},
         "input 'x' has a value that does not fit: got -32769, expected -32768 to 32767 for INT16"),
        (DType.UINT8, (1,), {"uint_contents": [256]},
         "input 'x' has a value that does not fit: got 256, expected 0 to 255 for UINT8"),
    ],
)  # fmt: skip
def test_what_does_not_fit(dtype, shape, fields, text):
    with pytest.raises(WireError) as caught:
        from_contents("x", dtype, shape, Contents(**fields))
    assert caught.value.message == text
