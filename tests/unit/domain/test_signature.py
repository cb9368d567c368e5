"""Tests of ``domain.signature``."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import InputError
from tailorbird.domain.signature import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(
        TensorSpec("ids", DType.INT64, ("rows", "words")),
        TensorSpec("mask", DType.BOOL, ("rows", "words")),
        TensorSpec("image", DType.FP32, ("rows", 3, "h", "w")),
        TensorSpec("scale", DType.FP32, ()),
    ),
    outputs=(TensorSpec("y", DType.FP32, ("rows", 10)),),
)
SHAPES: dict[str, Any] = {"ids": (2, 5), "mask": (2, 5), "image": (2, 3, 8, 9), "scale": ()}
SPECS = "ids INT64[rows,words], mask BOOL[rows,words], image FP32[rows,3,h,w], scale FP32[]"


def tensors(**changes: Any) -> dict[str, Any]:
    return {spec.name: np.zeros(SHAPES[spec.name], spec.dtype.numpy) for spec in SIGNATURE.inputs} | changes


def refusal(function: Any, argument: Any) -> str:
    with pytest.raises(InputError) as refused:
        function(argument)
    return refused.value.message


def test_fitting_inputs_pass() -> None:
    SIGNATURE.check(tensors())
    assert SIGNATURE.bind(SHAPES) == {"rows": 2, "words": 5, "h": 8, "w": 9}


def test_an_unknown_input() -> None:
    assert refusal(SIGNATURE.check, tensors(imag=np.zeros(1))) == (
        "unknown input 'imag': expected ids, mask, image, scale\nHint: did you mean 'image'?"
    )
    assert refusal(SIGNATURE.bind, SHAPES | {"zz": ()}) == "unknown input 'zz': expected ids, mask, image, scale"
    assert refusal(SIGNATURE.input, "idz") == (
        "unknown input 'idz': expected ids, mask, image, scale\nHint: did you mean 'ids'?"
    )


def test_a_missing_input() -> None:
    given = tensors()
    del given["mask"]
    assert refusal(SIGNATURE.check, given) == f"missing input 'mask': expected {SPECS}"


def test_a_wrong_dtype() -> None:
    message = refusal(SIGNATURE.check, tensors(ids=np.zeros((2, 5), np.int32)))
    assert message == "input 'ids' has the wrong dtype: got int32, expected INT64"
    swapped = np.zeros((2, 5), ">i8")
    assert refusal(SIGNATURE.check, tensors(ids=swapped)) == "input 'ids' has the wrong dtype: got >i8, expected INT64"


@pytest.mark.parametrize(
    ("value", "name"), [([0.0], "list"), (1.0, "float"), (np.float32(1), "float32"), (None, "NoneType")]
)
def test_what_is_no_array(value: Any, name: str) -> None:
    message = refusal(SIGNATURE.check, tensors(scale=value))
    assert message == f"input 'scale' is not a numpy array: got {name}, expected scale FP32[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": (2,)}, "input 'ids' has rank 1: got [2], expected [rows,words]"),
        ({"scale": (1,)}, "input 'scale' has rank 1: got [1], expected []"),
        ({"image": (2, 4, 8, 9)}, "input 'image' has the wrong shape: got [2, 4, 8, 9], expected [rows,3,h,w]"),
        ({"mask": (3, 5)}, "input 'mask' has the wrong shape: got [3, 5], expected [rows,words] (rows = 2)"),
        ({"mask": (2, 6)}, "input 'mask' has the wrong shape: got [2, 6], expected [rows,words] (words = 5)"),
    ],
)
def test_wrong_shapes(changes: dict[str, Any], message: str) -> None:
    assert refusal(SIGNATURE.bind, SHAPES | changes) == message
    wrong = {name: np.zeros(shape, SIGNATURE.input(name).dtype.numpy) for name, shape in changes.items()}
    assert refusal(SIGNATURE.check, tensors(**wrong)) == message


def test_dims_and_rows() -> None:
    spec = TensorSpec
    assert SIGNATURE.dynamic_dims == ("rows", "words", "h", "w")
    assert SIGNATURE.batch_dim is None  # the scalar has no rows
    assert Signature(SIGNATURE.inputs[:3], ()).batch_dim == "rows"
    assert Signature((spec("a", DType.FP32, (1, "n")),), ()).batch_dim is None
    assert Signature((spec("a", DType.FP32, ("n",)), spec("b", DType.FP32, ("m",))), ()).batch_dim is None
    assert Signature((), ()).batch_dim is None
    assert [one.is_dynamic for one in SIGNATURE.inputs] == [True, True, True, False]


DIMS = st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["a", "b", "c"])), max_size=4)


@given(st.lists(DIMS, min_size=1, max_size=3), st.fixed_dictionaries(dict.fromkeys("abc", st.integers(0, 9))))
def test_any_sizes_of_the_named_dims_bind_to_themselves(dims: list[list[Any]], sizes: dict[str, int]) -> None:
    signature = Signature(tuple(TensorSpec(f"x{i}", DType.FP32, tuple(one)) for i, one in enumerate(dims)), ())
    shapes = {spec.name: tuple(sizes.get(dim, dim) for dim in spec.dims) for spec in signature.inputs}  # type: ignore[call-overload]
    assert signature.bind(shapes) == {dim: sizes[dim] for dim in signature.dynamic_dims}
