import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError
from tailorbird.serving.classification import classified


def top(values, dtype, count, *, batched):
    array = np.array(values, dtype.numpy)
    arrays, kinds = classified({"y": array, "z": array}, {"y": dtype, "z": dtype}, {"y": count}, batched=batched)
    assert (kinds, arrays["z"] is array) == ({"y": DType.BYTES, "z": dtype}, True)
    assert arrays["y"].dtype == object
    return arrays["y"]


def test_each_row_has_classes_of_its_own():
    found = top([[0.1, 0.7, 0.2], [3, -1, 2]], DType.FP32, 2, batched=True)
    assert found.tolist() == [[b"0.700000:1", b"0.200000:2"], [b"3.000000:0", b"2.000000:2"]]


def test_what_is_not_batched_is_one_row():
    assert top([[1, 4], [3, 2]], DType.INT8, 3, batched=False).tolist() == [b"4:1", b"3:2", b"2:3"]


def test_more_classes_than_values():
    assert top([[5, 6]], DType.UINT8, 9, batched=True).tolist() == [[b"6:1", b"5:0"]]


def test_equal_values_keep_their_order():
    assert top([1, 1, 1], DType.INT32, 2, batched=False).tolist() == [b"1:0", b"1:1"]


@pytest.mark.parametrize(
    ("dtype", "values", "first"),
    [
        (DType.BOOL, [False, True], b"1:1"),
        (DType.UINT64, [2**64 - 1, 0], b"18446744073709551615:0"),
        (DType.INT64, [-(2**63), 2**63 - 1], b"9223372036854775807:1"),
        (DType.FP64, [1e300, 0], f"{1e300:f}:0".encode()),
        (DType.FP32, [np.inf, 1], b"inf:0"),
        (DType.FP32, [np.nan, 1], b"1.000000:1"),
    ],
)
def test_values_of_every_kind(dtype, values, first):
    assert top(values, dtype, 1, batched=False).tolist() == [first]


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_nothing_has_no_classes(shape):
    found = top(np.zeros(shape), DType.FP32, 3, batched=True)
    assert found.shape == (shape[0], min(3, shape[1]))


def test_close_integers_are_told_apart():
    assert top([2**63 - 2, 2**63 - 1], DType.INT64, 1, batched=False).tolist() == [b"9223372036854775807:1"]


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16, DType.BYTES])
def test_types_without_classes(dtype):
    with pytest.raises(InputError) as caught:
        classified({"y": np.zeros(3, dtype.numpy)}, {"y": dtype}, {"y": 1}, batched=False)
    assert (
        caught.value.message == f"output 'y' is {dtype}, which has no classes\nHint: ask for it without classification"
    )
