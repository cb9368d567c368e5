"""BYTES tensors: how many there may be, and what is made before that is known."""

import json
import struct
import tracemalloc

import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.service import tensors
from tailorbird.service.faults import WireError
from tailorbird.service.limits import Limits
from tailorbird.service.web import wire

FEW = Limits(bytes_elements=6)


def body(*shapes: list[int], binary: bool) -> tuple[bytes, int | None]:
    """A request of BYTES inputs, each element empty."""
    inputs = []
    blobs = b""
    for number, shape in enumerate(shapes):
        count = int(np.prod(shape))
        tensor: dict[str, object] = {"name": f"x{number}", "shape": shape, "datatype": "BYTES"}
        if binary:
            tensor["parameters"] = {"binary_data_size": 4 * count}
            blobs += bytes(4 * count)
        else:
            tensor["data"] = [""] * count
        inputs.append(tensor)
    text = json.dumps({"inputs": inputs}).encode()
    return (text + blobs, len(text)) if binary else (text, None)


@pytest.mark.parametrize("binary", [False, True])
def test_bytes_elements_are_counted_over_the_whole_request(binary: bool) -> None:
    request, _ = wire.decode_infer(*body([2, 2], [0], [2], binary=binary), "m", None, FEW)
    assert [array.size for array in request.inputs.values()] == [4, 0, 2]
    for shapes, name in (([[7]], "x0"), ([[4], [3]], "x1")):
        with pytest.raises(WireError) as caught:
            wire.decode_infer(*body(*shapes, binary=binary), "m", None, FEW)
        assert caught.value.message == (
            f"input '{name}' has too many BYTES elements: got 7, expected at most 6 in one request"
            "\nHint: send fewer rows at once"
        )


def test_bytes_over_the_limit_are_not_taken_apart() -> None:
    """They are of no valid kind, and that is not what is found."""
    size = Limits().bytes_elements + 1
    with pytest.raises(WireError, match="too many BYTES elements"):
        tensors.check_bytes("x", size, Limits().bytes_elements, Limits())
    text = b'{"inputs":[{"name":"x","shape":[%d],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}'
    text %= size, 4 * size
    with pytest.raises(WireError, match="too many BYTES elements"):
        wire.decode_infer(text + b"\xff" * 4 * size, len(text), "m", None, Limits())


@pytest.mark.parametrize(
    ("shape", "item"),
    [((1,), b'"ab"'), ((1, 1), b"[]"), ((1, 1), b'["a"]'), ((0,), b'""'), ((0, 1), b"[]")],
)
def test_json_with_more_strings_or_lists_than_the_shape_says_makes_none_of_them(
    shape: tuple[int, ...], item: bytes
) -> None:
    data = b"[" + b",".join([item] * 400_000) + b"]"
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            tensors.from_json("x", DType.BYTES, shape, data, Limits())
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # two copies of what was sent
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ['"', "\\", '\\"', ",", '[]"[', "", "\u2028", '"' * 9, "\\" * 9])
def test_strings_are_what_they_are_whatever_is_in_them(text: str) -> None:
    for shape, values in (((2,), [text, text]), ((2, 1), [[text], [text]]), ((1, 2), [[text, text]])):
        array = tensors.from_json("x", DType.BYTES, shape, json.dumps(values).encode(), Limits())
        assert array.shape == shape
        assert list(array.ravel()) == [text.encode()] * 2
    with pytest.raises(WireError):
        tensors.from_json("x", DType.BYTES, (1,), json.dumps([text, text]).encode(), Limits())


def test_no_strings_are_as_good_as_any_other_number() -> None:
    for shape, text in (((0,), b"[]"), ((2, 0), b"[[],[]]"), ((2, 0), b"[]"), ((0, 2), b"[ ]")):
        assert tensors.from_json("x", DType.BYTES, shape, text, Limits()).shape == shape


def test_binary_strings_are_copies_of_what_came() -> None:
    blob = bytearray(struct.pack("<I2sI", 2, b"ab", 0))
    array = tensors.from_binary("x", DType.BYTES, (2,), memoryview(blob))
    blob[:] = bytes(len(blob))
    assert list(array) == [b"ab", b""]
